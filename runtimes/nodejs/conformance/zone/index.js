exports.handler = async () => ({ hour: new Date(0).getHours(), greeting: process.env.GREETING });
