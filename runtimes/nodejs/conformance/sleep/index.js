exports.handler = (event, context, callback) => {
  setTimeout(() => callback(null, event.ms), event.ms);
};
