'use strict';
// What a process does before anybody needs it: loads what functions often require and runs its own paths once.
// Leaves nothing behind that a function could see.

const path = require('path');

const COMMON_MODULES = [
  'assert', 'async_hooks', 'buffer', 'child_process', 'crypto', 'diagnostics_channel', 'dns', 'events', 'fs', 'fs/promises', 'http',
  'https', 'module', 'net', 'os', 'path', 'perf_hooks', 'querystring', 'stream', 'stream/promises', 'string_decoder', 'timers',
  'timers/promises', 'tls', 'url', 'util', 'v8', 'vm', 'zlib',
];
// Node compiles a function the first time it runs, and runs it faster after a few: more loads than these gain nothing.
const LOADS = 4;
const DRY_RUNS = 20;

function run(runtimeDir) {
  for (const name of COMMON_MODULES) require(name);
  dryRun(path.join(runtimeDir, 'prime'));
}

// The whole way but for the socket: load, frames in, handler, frames out.
function dryRun(taskDir) {
  const { Channel, READY } = require('./frames');
  const { Calls } = require('./calls');
  const { functionContext } = require('./context');
  const load = require('./load');
  const logs = require('./logs');
  require('./transport');
  const files = new Set(Object.keys(require.cache));
  const environment = { ...process.env };
  const about = JSON.parse('{"functionName":"prime","functionVersion":"1","brn":"","handler":"index.handler","memoryMB":128,"timeoutMs":1,'
    + '"concurrency":0,"userId":"","env":{}}');
  for (let loads = 0; loads < LOADS; loads++) {
    const channel = new Channel({ onInvoke: (...invocation) => calls.begin(...invocation) });
    logs.concurrent(channel, () => {});
    logs.exclusive();
    load.applyEnvironment(about, taskDir);
    const handler = load.findHandler(about.handler, taskDir);
    channel.addText(READY, 0, 0, 0, '');
    channel.clear();
    const calls = new Calls(channel, handler, functionContext(about), null, () => {});
    channel.addText(4, 0, 1, 0, '{"name":"prime"}');
    const frame = Buffer.from(channel.out.subarray(0, channel.outBytes));
    channel.clear();
    for (let n = 0; n < DRY_RUNS; n++) channel.consume(frame, frame.length);
    for (const file of Object.keys(require.cache)) {
      if (!files.has(file)) delete require.cache[file];
    }
  }
  for (const name of Object.keys(process.env)) {
    if (!(name in environment)) delete process.env[name];
    else if (process.env[name] !== environment[name]) process.env[name] = environment[name];
  }
}

module.exports = { run };
