exports.handler = (e, c, cb) => { console.log('start'); setTimeout(() => { console.log('end'); cb(null, 'late'); }, e.ms || 0); };
