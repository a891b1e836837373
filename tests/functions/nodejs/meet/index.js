// Each call waits until `n` calls are inside: it only answers if they run at the same time, in this process.
const TOKEN = require('crypto').randomBytes(8).toString('hex');
let inside = 0;

exports.handler = async (event) => {
  inside += 1;
  while (inside < event.n) await new Promise((resolve) => { setTimeout(resolve, 1); });
  await new Promise((resolve) => { setTimeout(resolve, (event.seconds || 0) * 1000); });
  return { token: TOKEN, met: true };
};
