exports.handler = 'a string';
