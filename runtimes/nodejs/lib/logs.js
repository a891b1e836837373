'use strict';
// What handlers print. docs/protocol.md section 7.
//
// process.stdout and process.stderr are replaced by streams that write before they return. Exclusive instance: to the pipe,
// so that a line is there before the answer and before a kill at the deadline. (Node's own stream does that only while the pipe has
// room.) Concurrent instance: as `log` frames of the invocation that prints, known from an AsyncLocalStorage.

const { AsyncLocalStorage } = require('async_hooks');
const { Writable } = require('stream');
const { writeAllSync } = require('./transport');

class LogStream extends Writable {
  // sink(text or Buffer) takes it all at once.
  constructor(fd, sink) {
    super({ decodeStrings: false });
    this.fd = fd;
    this._sink = sink;
    this._type = 'pipe';
  }

  write(chunk, encoding, callback) {
    if (typeof encoding === 'function') callback = encoding;
    else if (typeof chunk === 'string' && encoding && encoding !== 'utf8' && encoding !== 'utf-8') chunk = Buffer.from(chunk, encoding);
    this._sink(chunk);
    if (typeof callback === 'function') process.nextTick(callback);
    return true;
  }

  _write(chunk, encoding, callback) {
    this._sink(chunk);
    callback();
  }

  // Standard output is not the user's to close.
  end(chunk, encoding, callback) {
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') this.write(chunk, encoding);
    const ended = [chunk, encoding, callback].find((value) => typeof value === 'function');
    if (ended) process.nextTick(ended);
    return this;
  }

  destroy() {
    return this;
  }
}

function toPipe(fd, chunk) {
  const data = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
  writeAllSync(fd, data, data.length);
}

function install(makeSink) {
  for (const [fd, name] of [[1, 'stdout'], [2, 'stderr']]) {
    const stream = new LogStream(fd, makeSink(fd));
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
  }
}

function exclusive() {
  install((fd) => (chunk) => toPipe(fd, chunk));
}

// Returns {run(context, work), finish(context)}: `finish` ends an invocation's unfinished lines, before its answer.
function concurrent(channel, flushSoon) {
  const current = new AsyncLocalStorage();
  const post = (context, fd, text) => channel.addLog(fd === 2, context._low, context._high, text);
  install((fd) => (chunk) => {
    const context = current.getStore();
    if (context === undefined || !context._open) {
      toPipe(fd, chunk);
      return;
    }
    if (context._lines === null) context._lines = ['', ''];
    const text = context._lines[fd - 1] + (typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString());
    const end = text.lastIndexOf('\n') + 1;
    context._lines[fd - 1] = text.slice(end);
    if (end > 0) {
      post(context, fd, text.slice(0, end));
      flushSoon();
    }
  });
  return {
    run: (context, work, text) => current.run(context, work, context, text),
    finish: (context) => {
      for (const fd of [1, 2]) {
        if (context._lines[fd - 1] !== '') post(context, fd, context._lines[fd - 1] + '\n');
      }
    },
  };
}

module.exports = { exclusive, concurrent };
