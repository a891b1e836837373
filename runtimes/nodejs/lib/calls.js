'use strict';
// Runs the handler for each invocation and turns what becomes of it into one answer.
// Must not know: sockets, and when frames are written (it says `settled()` when there is something to write).

const failure = require('./failure');
const { keyOf, RESULT_BYTES_MAX } = require('./frames');

class Calls {
  // `logs` is what logs.concurrent returned, or null in an exclusive instance.
  constructor(channel, handler, Context, logs, settled) {
    this.channel = channel;
    this.handler = handler;
    this.Context = Context;
    this.logs = logs;
    this.settled = settled;
    this.open = new Map(); // key -> context, for the unanswered
    this.finish = (context, error, result) => this._finish(context, error, result);
    this.work = (context, eventText) => this._run(context, eventText);
    // With fewer parameters there is neither callback nor context to answer with.
    this.answersByReturn = handler.length < 2;
    this.answersByCallback = handler.length >= 3;
  }

  begin(low, high, deadlineMs, metaText, eventText) {
    const context = new this.Context(low, high, deadlineMs, metaText, this.finish);
    this.open.set(keyOf(low, high), context);
    if (this.logs === null) this._run(context, eventText);
    else this.logs.run(context, this.work, eventText);
  }

  _run(context, eventText) {
    let event;
    try {
      event = JSON.parse(eventText);
    } catch (error) {
      this._answerError(context, failure.encode(`the event is not valid JSON: ${error.message}`, 'Runtime.UnmarshalError', []));
      return;
    }
    let result;
    try {
      const handler = this.handler; // called without `this`
      result = handler(event, context, (error, value) => this._finish(context, error, value));
    } catch (error) {
      this._fail(context, error);
      return;
    }
    if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
      result.then((value) => this._finish(context, null, value), (error) => this._fail(context, error));
    } else if (this.answersByReturn || (result !== undefined && !this.answersByCallback)) {
      this._finish(context, null, result);
    }
  }

  // The first answer counts.
  _finish(context, error, result) {
    if (!context._open) return;
    if (error !== null && error !== undefined) {
      this._fail(context, error);
      return;
    }
    let body;
    try {
      if (typeof result === 'string') body = result;
      else if (result instanceof Uint8Array) body = Buffer.from(result.buffer, result.byteOffset, result.byteLength);
      else body = JSON.stringify(result);
    } catch (cause) {
      this._answerError(context, failure.encode(`the result cannot be sent: ${cause.message}`, 'Runtime.MarshalError', []));
      return;
    }
    if (body === undefined) body = 'null';
    this._close(context);
    if (context._cancelled) {
      this.channel.addCancelled(context._low, context._high);
    } else if (!this.channel.addResult(context._low, context._high, body)) {
      const text = `Response payload size exceeded maximum allowed payload size (${RESULT_BYTES_MAX} bytes).`;
      this.channel.addError(context._low, context._high, failure.encode(text, 'Function.ResponseSizeTooLarge', []));
    }
    this.settled();
  }

  _fail(context, error, type) {
    if (context._open) this._answerError(context, failure.describe(error, type));
  }

  _answerError(context, text) {
    this._close(context);
    if (context._cancelled) this.channel.addCancelled(context._low, context._high);
    else this.channel.addError(context._low, context._high, text);
    this.settled();
  }

  _close(context) {
    if (context._lines !== null) this.logs.finish(context);
    context._open = false;
    this.open.delete(keyOf(context._low, context._high));
  }

  // A promise cannot be stopped, but its answer is replaced by a short one.
  cancel(key) {
    const context = this.open.get(key);
    if (context !== undefined) context._cancelled = true;
  }

  // The process is about to die of `error`: it is the answer to everything in flight.
  failAll(error, type) {
    for (const context of [...this.open.values()]) this._fail(context, error, type);
  }

  // Nothing can happen any more that would answer these.
  answerNull() {
    for (const context of [...this.open.values()]) this._finish(context, null, undefined);
  }
}

module.exports = { Calls };
