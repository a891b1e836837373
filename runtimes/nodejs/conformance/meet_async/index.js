// Each call waits until `n` calls are inside: it only ever answers if they run at the same time.
const { EventEmitter, once } = require('events');

const changed = new EventEmitter();
changed.setMaxListeners(0);
let inside = 0;

exports.handler = async (event) => {
  console.log('before', event.tag);
  inside++;
  changed.emit('inside');
  while (inside < event.n) await once(changed, 'inside');
  console.log('after', event.tag);
  return event.tag;
};
