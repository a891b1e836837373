exports.handler = (e, c, cb) => cb(null, { statusCode: 200, headers: { 'X-A': 'a\r\nSet-Cookie: b' }, body: 'x' });
