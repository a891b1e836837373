exports.handler = async () => {
  const circle = {};
  circle.circle = circle;
  return circle;
};
