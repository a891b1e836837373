// FaaSter's quick start: a text is sent as it is, without quotes.
exports.handler = (event, context, callback) => {
  callback(null, 'Hello world!');
};
