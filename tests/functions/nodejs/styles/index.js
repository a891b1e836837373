// Handlers of every kind that Node functions have.
exports.asynchronous = async () => 'from async';
exports.promise = () => new Promise((resolve) => { setTimeout(() => resolve('from a promise'), 1); });
exports.callback = (event, context, callback) => { setTimeout(() => callback(null, 'from a callback'), 1); };
exports.callbackAtOnce = (event, context, callback) => callback(null, 'at once');
exports.callbackError = (event, context, callback) => callback('string error');
exports.callbackErrorObject = (event, context, callback) => callback(new RangeError('too far'));
exports.callbackTwice = (event, context, callback) => { callback(null, 'first'); callback(null, 'second'); };
exports.succeed = (event, context) => { context.succeed('from succeed'); };
exports.returned = (event) => 'from a return';
exports.nested = { deep: async () => 'from deep' };
