exports.handler = (e, c, cb) => { throw new Error('boom'); };
