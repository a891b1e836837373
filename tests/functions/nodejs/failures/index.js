// Ways to fail, chosen by the event's "do".
const fs = require('fs');

const TOKEN = require('crypto').randomBytes(8).toString('hex');

function mark(event) {
  if (event.name) fs.writeFileSync(`/tmp/gate-${event.name}`, '');
}

const WAYS = {
  token: async () => TOKEN,
  throw: async () => { throw new TypeError('boom'); },
  throw_later: () => new Promise(() => { setTimeout(() => { throw new Error('late boom'); }, 1); }),
  reject_unhandled: () => new Promise(() => { Promise.reject(new Error('nobody looks')); }),
  hang: (event) => { mark(event); return new Promise(() => { setInterval(() => {}, 1000); }); },
  spin: (event) => { mark(event); for (;;); },
  exit: (event) => { process.exit(event.code); },
  kill: () => { process.kill(process.pid, 'SIGKILL'); return new Promise(() => { setInterval(() => {}, 1000); }); },
  memory: () => { const hold = []; for (;;) hold.push(Buffer.alloc(4 << 20, 1)); },
  garbage: () => { fs.writeSync(3, 'this is no frame '.repeat(100)); return new Promise(() => { setInterval(() => {}, 1000); }); },
  stubborn: (event) => { process.on('SIGTERM', () => {}); mark(event); return new Promise(() => { setInterval(() => {}, 1000); }); },
};

exports.handler = (event, context) => WAYS[event.do](event);
