'use strict';
// The life of the process: hello, load, ready, then calls until the channel ends. docs/protocol.md section 4.
//
// Answers are written once per turn of the event loop: those that are ready when a read has been worked off together with it, later
// ones (promises, timers) together in the turn's check phase. An exclusive instance has no neighbours to wait for and writes at once.

const { functionContext } = require('./context');
const { Calls } = require('./calls');
const failure = require('./failure');
const { Channel, Garbage, HELLO, READY } = require('./frames');
const load = require('./load');
const logs = require('./logs');
const { Transport } = require('./transport');

// Log lines of a handler that does not come back to the event loop are not held beyond this.
const LOG_BYTES_HELD_MAX = 65536;
const EXIT_FAILED = 1;
const EXIT_GARBAGE = 70; // EX_SOFTWARE of sysexits.h: the other side broke the protocol

class Server {
  constructor(fd, taskDir) {
    this.taskDir = taskDir;
    this.calls = null;
    this.early = null; // invocations that came before the handler was there
    this.inRead = false;
    this.flushPlanned = false;
    this.exclusive = true;
    this.unreferenced = false;
    this.onTurnEnd = () => this._turnEnd();
    this.channel = new Channel({
      onLoad: (about) => this._load(about),
      onInvoke: (low, high, deadlineMs, meta, event) => this._invoke(low, high, deadlineMs, meta, event),
      onCancel: (key) => { if (this.calls !== null) this.calls.cancel(key); },
      onPing: () => this.transport.flush(this.channel), // now, not after the calls that may stand behind it
      onShutdown: () => process.exit(0),
    });
    this.transport = new Transport(fd, (data, size) => this._read(data, size), () => process.exit(0));
    process.on('exit', () => this.transport.lastFlush(this.channel));
    this.channel.addMeta(HELLO, { protocol: 1, runtime: `nodejs${process.versions.node}`, features: ['concurrent'] });
    this.transport.flush(this.channel);
  }

  _read(data, size) {
    this.inRead = true;
    try {
      this.channel.consume(data, size);
    } catch (error) {
      if (!(error instanceof Garbage)) throw error;
      process._rawDebug(`faaster runtime: protocol error: ${error.message}`);
      process.exit(EXIT_GARBAGE);
    }
    this.inRead = false;
    this.transport.flush(this.channel);
    if (this.calls !== null && this.calls.open.size > 0) this._planTurnEnd();
  }

  _invoke(low, high, deadlineMs, meta, event) {
    if (this.calls !== null) this.calls.begin(low, high, deadlineMs, meta, event);
    else if (this.early !== null) this.early.push([low, high, deadlineMs, meta, event]);
    else throw new Garbage('invoke before load');
  }

  // Something is to be written.
  _settled() {
    if (this.inRead) return;
    if (this.exclusive) {
      this.transport.flush(this.channel);
      this._reference();
    } else {
      this._planTurnEnd();
    }
  }

  _planTurnEnd() {
    if (this.flushPlanned) return;
    this.flushPlanned = true;
    setImmediate(this.onTurnEnd);
  }

  _turnEnd() {
    this.flushPlanned = false;
    this.transport.flush(this.channel);
    this._reference();
  }

  // While an exclusive instance runs a call the channel does not keep the event loop alive: if nothing else does, the handler can
  // never answer, which Node reports as beforeExit. (A concurrent one may be waiting for a neighbour yet to come.)
  _reference() {
    const unreference = this.exclusive && this.calls.open.size > 0;
    if (unreference === this.unreferenced) return;
    this.unreferenced = unreference;
    if (unreference) this.transport.unref();
    else this.transport.ref();
  }

  _load(about) {
    this.early = [];
    this.exclusive = !about.concurrency;
    const flushSoon = () => {
      if (this.channel.outBytes > LOG_BYTES_HELD_MAX) this.transport.flush(this.channel);
      else if (!this.inRead) this._planTurnEnd();
    };
    let attribution = null;
    if (this.exclusive) logs.exclusive();
    else attribution = logs.concurrent(this.channel, flushSoon);
    try {
      load.applyEnvironment(about, this.taskDir);
      process.chdir(this.taskDir);
      const handler = load.findHandler(about.handler, this.taskDir);
      if (handler instanceof Promise) handler.then((found) => this._loaded(about, found, attribution), (error) => this._notLoaded(error));
      else this._loaded(about, handler, attribution);
    } catch (error) {
      this._notLoaded(error);
    }
  }

  _loaded(about, handler, attribution) {
    this.channel.addMeta(READY, { features: ['ping'] });
    this.calls = new Calls(this.channel, handler, functionContext(about), attribution, () => this._settled());
    this._watchForTheEnd();
    for (const invocation of this.early) this.calls.begin(...invocation);
    this.early = null;
    if (!this.inRead) this._turnEnd();
  }

  _notLoaded(error) {
    this.channel.addError(0, 0, failure.describe(error));
    process.exit(EXIT_FAILED);
  }

  _watchForTheEnd() {
    const die = (error, type) => {
      // Without a call to blame, the log is the only place to say why.
      if (this.calls.open.size === 0) process.stderr.write(`${(error && error.stack) || error}\n`);
      // In the same write as the answers: the engine must not send another call to a process that is about to end.
      this.channel.addError(0, 0, failure.describe(error, type));
      this.calls.failAll(error, type);
      process.exit(EXIT_FAILED);
    };
    process.on('uncaughtException', (error) => die(error));
    process.on('unhandledRejection', (reason) => die(reason, 'Runtime.UnhandledPromiseRejection'));
    process.on('beforeExit', () => {
      this.calls.answerNull();
      this._reference();
    });
  }
}

function run(fd, taskDir) {
  return new Server(fd, taskDir);
}

module.exports = { run };
