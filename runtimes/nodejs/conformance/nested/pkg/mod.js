exports.handler = async () => 'mod';
