// Shows what a function knows about its call and its surroundings, and how it logs.
exports.handler = async (event, context) => {
  console.log('a line on standard output');
  console.error('a line on standard error');
  return {
    requestId: context.requestId,
    functionName: context.functionName,
    functionVersion: context.functionVersion,
    functionBrn: context.functionBrn,
    memoryLimitInMB: context.memoryLimitInMB,
    remainingTimeMs: context.getRemainingTimeInMillis(),
    clientContext: context.clientContext || null,
    greeting: process.env.GREETING || 'set the variable GREETING of this function',
  };
};
