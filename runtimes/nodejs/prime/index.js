'use strict';
// A handler that only priming loads (lib/prime.js).
exports.handler = (event, context, callback) => callback(null, { name: event.name, remaining: context.getRemainingTimeInMillis() });
