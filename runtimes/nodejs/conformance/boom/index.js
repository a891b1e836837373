function explode() {
  throw new Error('boom');
}

exports.handler = async () => explode();
