'use strict';
// The nodejs runtime's entry: boots, primes itself, says hello, loads one function and serves it.
// The life of a runtime is docs/protocol.md, section 4; the parts are in lib/.

const taskDir = process.env.FAASTER_TASK_DIR || '/var/task';
const runtimeDir = process.env.FAASTER_RUNTIME_DIR || '/var/runtime';
delete process.env.FAASTER_TASK_DIR;
delete process.env.FAASTER_RUNTIME_DIR;
const CHANNEL_FD = 3;

require('./lib/prime').run(runtimeDir);
require('./lib/serve').run(CHANNEL_FD, taskDir);
