exports.handler = async () => process.env.GREETING;
