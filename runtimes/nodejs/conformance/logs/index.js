exports.handler = (event, context, callback) => {
  console.log('out', event.tag);
  console.error('err', event.tag);
  process.stdout.write('unfinished ' + event.tag);
  callback(null, 'logged');
};
