exports.name = 'in vendor';
