exports.handler = (e, c, cb) => { console.log('out line'); console.error('err line'); setTimeout(() => cb(null, 'logged'), e.ms || 0); };
