exports.handler = (e, c, cb) => { for (let i = 0; i < 200; i++) console.log('line ' + i + ' ' + 'x'.repeat(40)); cb(null, 'ok'); };
