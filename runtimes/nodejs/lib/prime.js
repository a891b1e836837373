'use strict';
// What a process does before anybody needs it: loads what functions often require and runs its own paths once.
// Leaves nothing behind that a function could see.

const path = require('path');

const COMMON_MODULES = [
  'assert', 'async_hooks', 'buffer', 'child_process', 'crypto', 'diagnostics_channel', 'dns', 'events', 'fs', 'fs/promises', 'http',
  'https', 'module', 'net', 'os', 'path', 'perf_hooks', 'querystring', 'stream', 'stream/promises', 'string_decoder', 'timers',
  'timers/promises', 'tls', 'url', 'util', 'v8', 'vm', 'zlib',
];
const DRY_RUNS = 50;

function run(runtimeDir) {
  for (const name of COMMON_MODULES) require(name);
  dryRun(path.join(runtimeDir, 'prime'));
}

// The whole way of a call but for the socket: frames in, handler, frames out.
function dryRun(taskDir) {
  const { Channel } = require('./frames');
  const { Calls } = require('./calls');
  const { functionContext } = require('./context');
  const load = require('./load');
  require('./logs');
  require('./transport');
  const before = new Set(Object.keys(require.cache));
  const handler = load.findHandler('index.handler', taskDir);
  const channel = new Channel({ onInvoke: (...invocation) => calls.begin(...invocation) });
  const calls = new Calls(channel, handler, functionContext({}), null, () => {});
  channel.addText(4, 0, 1, 0, '{"name":"prime"}');
  const frame = Buffer.from(channel.out.subarray(0, channel.outBytes));
  channel.clear();
  for (let n = 0; n < DRY_RUNS; n++) channel.consume(frame, frame.length);
  for (const file of Object.keys(require.cache)) {
    if (!before.has(file)) delete require.cache[file];
  }
}

module.exports = { run };
