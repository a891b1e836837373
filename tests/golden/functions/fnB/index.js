exports.handler = (e, c, cb) => cb(null, 'I am B');
