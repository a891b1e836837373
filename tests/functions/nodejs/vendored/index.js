// Packages that came in the zip.
const dep = require('dep');

exports.handler = async () => [dep.name, require('dep/package.json').version];
