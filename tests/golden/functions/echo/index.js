exports.handler = (e, c, cb) => cb(null, e);
