exports.handler = (e, c, cb) => cb(null, 'v1');
