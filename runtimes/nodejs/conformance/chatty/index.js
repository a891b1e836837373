exports.handler = async (event) => {
  for (let n = 0; n < event.lines; n++) console.log('x'.repeat(99));
  return 'done';
};
