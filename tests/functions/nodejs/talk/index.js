// Prints as the event says.
let inside = 0;

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

exports.handler = async (event) => {
  if (event.meet) {
    inside += 1;
    while (inside < event.meet) await pause(1);
  }
  for (let number = 0; number < (event.lines || 0); number += 1) {
    console.log(`line ${number} of ${event.tag || ''} ${'x'.repeat(event.width || 0)}`);
    if (event.meet) await pause(1);
  }
  if (event.err) console.error(event.err);
  if (event.long) console.log('L'.repeat(event.long));
  return 'talked';
};
