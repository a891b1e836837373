exports.handler = (e, c, cb) => cb(null, 'héllo ☃ <b>&');
