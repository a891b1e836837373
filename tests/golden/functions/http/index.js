exports.handler = (e, c, cb) => cb(null, { statusCode: 201, headers: { 'X-A': 'b', 'Content-Type': 'text/html' }, body: '<p>' + e.httpMethod + '</p>' + JSON.stringify(e) });
