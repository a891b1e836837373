'use strict';
// Error objects of docs/protocol.md section 8, from whatever was thrown.

const path = require('path');
const util = require('util');

const OWN_DIR = path.dirname(__dirname) + path.sep;

// The function cannot be loaded; `type` is one of AWS's names for that.
class LoadError extends Error {
  constructor(type, message, stackLines = []) {
    super(message);
    this.type = type;
    this.stackLines = stackLines;
  }
}

// The "at ..." lines down to the first one of ours: below it there is nothing of the user's.
function userStack(error) {
  const lines = [];
  for (const line of String(error.stack || '').split('\n')) {
    if (line.includes(OWN_DIR)) break;
    const text = line.trim();
    if (text.startsWith('at ') && !text.includes('node:internal/modules/')) lines.push(text);
  }
  return lines;
}

function isError(value) {
  return value instanceof Error || util.types.isNativeError(value);
}

// The error object as JSON. A plain text, as in callback('text'), is the message and nothing else, as in FaaSter.
function describe(thrown, type) {
  if (thrown instanceof LoadError) return encode(thrown.message, thrown.type, thrown.stackLines);
  try {
    if (isError(thrown)) return encode(String(thrown.message), type || String(thrown.name), userStack(thrown));
    if (typeof thrown === 'string') return type ? encode(thrown, type, []) : JSON.stringify({ errorMessage: thrown });
    if (thrown !== null && typeof thrown === 'object' && typeof thrown.message === 'string') {
      return encode(thrown.message, type || String(thrown.name || 'Error'), []);
    }
    return encode(util.inspect(thrown), type || typeof thrown, []);
  } catch (broken) { // getters of a user's error may throw
    return encode(`the error cannot be shown: ${broken && broken.message}`, type || 'Error', []);
  }
}

function encode(message, type, stack) {
  return JSON.stringify({ errorMessage: message, errorType: type, stackTrace: stack });
}

module.exports = { LoadError, describe, encode, userStack };
