exports.handler = (e, c, cb) => cb(null, { isBase64Encoded: true, statusCode: 200, headers: {}, body: 'aGVsbG8=' });
