exports.handler = (e, c, cb) => cb(null, 'x'.repeat(e.n));
