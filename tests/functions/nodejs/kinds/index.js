// What results and contexts look like, chosen by the event's "kind"; the same in every language.
exports.handler = async (event, context) => {
  if (event.kind === 'context') {
    return {
      requestId: context.awsRequestId,
      name: context.functionName,
      version: context.functionVersion,
      memory: Number(context.memoryLimitInMB),
      brn: context.invokedFunctionArn,
      remaining: context.getRemainingTimeInMillis(),
      client: context.clientContext === undefined ? null : context.clientContext,
    };
  }
  const orNull = (value) => (value === undefined ? null : value);
  return {
    text: 'plain text',
    quoted: 'with "quotes"\n',
    unicode: 'héllo ☃ 𝄞 <b>&',
    object: { a: [1, 2, { b: null }], s: '<x>&☃' },
    none: undefined,
    number: 42,
    true: true,
    empty: '',
    list: [],
    echo: event,
    env: [orNull(process.env.GREETING), orNull(process.env.EMPTY), null],
    cwd: process.cwd(),
    path: process.env.PATH,
  }[event.kind];
};
