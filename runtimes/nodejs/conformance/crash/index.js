// Fails outside of the promise that the handler returned.
exports.handler = (event, context, callback) => {
  if (event.how === 'throw') setTimeout(() => { throw new RangeError('thrown late'); }, 1);
  else if (event.how === 'reject') Promise.reject(new TypeError('rejected'));
  else if (event.how === 'reject text') Promise.reject('text');
};
