exports.handler = async (event) => {
  if (event.x) process.exit(3);
  return 'alive';
};
