'use strict';
// The context object that a handler gets. It is the runtime's record of the invocation as well (the fields with an underscore).
// What all calls of a function share is on the prototype; ids and the client context are decoded when a handler looks at them.

class CallContext {
  constructor(low, high, deadlineMs, metaText, finish) {
    this._low = low;
    this._high = high;
    this._deadlineMs = deadlineMs;
    this._metaText = metaText;
    this._meta = undefined;
    this._finish = finish; // (context, error, result)
    this._open = true; // not answered yet: log frames may carry its id
    this._cancelled = false;
    this._lines = null; // unfinished lines: [stdout, stderr]
    this.callbackWaitsForEmptyEventLoop = true; // accepted; answers never wait for it
  }

  get _info() {
    if (this._meta === undefined) this._meta = this._metaText === '' ? {} : JSON.parse(this._metaText);
    return this._meta;
  }

  get requestId() { return this._info.requestId; }
  get awsRequestId() { return this._info.requestId; }

  get clientContext() {
    const value = this._info.clientContext;
    return value === null ? undefined : value;
  }

  // Functions and not methods: they are often passed on without their object.
  get done() { return (error, result) => this._finish(this, error, result); }
  get succeed() { return (result) => this._finish(this, null, result); }
  get fail() { return (error) => this._finish(this, error === undefined || error === null ? new Error('failed') : error); }
  get getRemainingTimeInMillis() { return () => remainingMs(this._deadlineMs, this._timeoutMs); }

  // What FaaSter's own context shows.
  toJSON() {
    return {
      requestId: this.requestId,
      functionBrn: this.functionBrn,
      functionName: this.functionName,
      functionVersion: this.functionVersion,
      memoryLimitInMB: this.memoryLimitInMB,
    };
  }
}

// Whole milliseconds until the engine answers for the handler.
function remainingMs(deadlineMs, timeoutMs) {
  if (deadlineMs === 0) return timeoutMs;
  const [seconds, nanoseconds] = process.hrtime();
  return Math.max(0, Math.floor(deadlineMs - seconds * 1e3 - nanoseconds / 1e6));
}

// The context class of one function; `about` is the meta of the load frame.
function functionContext(about) {
  class Context extends CallContext {}
  const shared = {
    functionName: about.functionName,
    functionVersion: about.functionVersion,
    functionBrn: about.brn,
    invokedFunctionArn: about.brn,
    logGroupName: `/faaster/${about.functionName}`,
    logStreamName: about.functionVersion,
    identity: undefined,
    _timeoutMs: about.timeoutMs,
  };
  for (const [name, value] of Object.entries(shared)) {
    Object.defineProperty(Context.prototype, name, { value, writable: true, enumerable: true });
  }
  // A call says it only where it was edited since the load.
  Object.defineProperty(Context.prototype, 'memoryLimitInMB', {
    get() { return this._info.memoryMB === undefined ? about.memoryMB : this._info.memoryMB; }, enumerable: true,
  });
  return Context;
}

module.exports = { functionContext };
