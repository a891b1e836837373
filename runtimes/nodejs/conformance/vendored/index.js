const atRoot = require('at_root');
const inVendor = require('in_vendor');

exports.handler = async () => [atRoot.name, inVendor.name];
