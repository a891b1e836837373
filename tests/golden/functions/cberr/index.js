exports.handler = (e, c, cb) => cb('string error');
