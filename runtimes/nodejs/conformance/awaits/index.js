// Prints around awaits of many kinds.
const { setTimeout: sleep } = require('timers/promises');
const fs = require('fs');

exports.handler = async (event) => {
  console.log('one', event.tag);
  await null;
  console.log('two', event.tag);
  await sleep(1);
  console.error('three', event.tag);
  await fs.promises.stat('.');
  process.stdout.write('four ' + event.tag + '\n');
  return event.tag;
};
