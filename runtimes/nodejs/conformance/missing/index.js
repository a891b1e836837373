exports.other = () => null;
