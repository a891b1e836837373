const later = (work) => setTimeout(work, 1);
const styles = {
  callback: (event, context, callback) => { callback(null, { from: 'callback' }); },
  late_callback: (event, context, callback) => { later(() => callback(null, 'late')); },
  twice: (event, context, callback) => { callback(null, 'first'); callback(null, 'second'); },
  succeed: (event, { succeed }) => { later(() => succeed('succeeded')); },
  done: (event, context) => { context.done(null, [1]); },
  fail: (event, context) => { context.fail(new TypeError('failed')); },
  promise: () => Promise.resolve('promised'),
  value: () => 'returned',
  undefined: async () => undefined,
  nothing: (event) => {},
  buffer: async () => Buffer.from([0, 255, 1]),
  string_error: (event, context, callback) => callback('string error'),
  thrown_text: async () => { throw 'text'; },
  thrown_object: async () => { throw { message: 'an object', name: 'Odd' }; },
  thrown_null: async () => { throw null; },
  late_error: async () => { await new Promise(later); throw new RangeError('late'); },
  context: (event, context, callback) => callback(null, context),
  never: () => new Promise(() => {}),
  empties: (event, context, callback) => { context.callbackWaitsForEmptyEventLoop = false; later(() => {}); },
  bigint: async () => 1n,
};
exports.handler = (event, context, callback) => styles[event.style](event, context, callback);
for (const [name, style] of Object.entries(styles)) exports[name] = style;
exports.deep = { inside: async () => 'deep' };
