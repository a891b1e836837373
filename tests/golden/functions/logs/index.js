exports.handler = (e, c, cb) => { console.log('out line'); console.error('err line'); cb(null, 'logged'); };
