// Each call waits until `n` calls are inside: it only ever answers if they run at the same time. With callbacks.
let inside = 0;

exports.handler = (event, context, callback) => {
  console.log('before', event.tag);
  inside++;
  (function look() {
    if (inside < event.n) {
      setTimeout(look, 1);
      return;
    }
    console.log('after', event.tag);
    callback(null, event.tag);
  })();
};
