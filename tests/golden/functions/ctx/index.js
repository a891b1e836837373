exports.handler = (e, c, cb) => cb(null, c);
