'use strict';
// Bytes in and out of the channel's socket.
//
// Reading: a net.Socket that reads into one buffer of ours, no allocation per read. Writing: first a plain write(2) of the
// whole buffer, which is all there is to it unless the engine is slow; only what the socket does not take goes through the stream,
// whose write costs 3-4 us more. The figures are in README.md.

const fs = require('fs');
const net = require('net');

const READ_BYTES = 65536;

class Transport {
  // onData(buffer, size) for each read, onEnd() at the end of the channel.
  constructor(fd, onData, onEnd) {
    this.fd = fd;
    this.waiting = 0; // writes under way in the stream: until they are done all others follow them
    this.socket = new net.Socket({
      fd,
      readable: true,
      writable: true,
      allowHalfOpen: true,
      onread: {
        buffer: Buffer.allocUnsafeSlow(READ_BYTES),
        callback: (size, buffer) => {
          onData(buffer, size);
          return true;
        },
      },
    });
    this.socket.on('end', onEnd);
    this.socket.on('close', onEnd);
    this.socket.on('error', onEnd);
    this.socket.resume();
  }

  // Writes the channel's frames.
  flush(channel) {
    const size = channel.outBytes;
    if (size === 0) return;
    const written = this.waiting === 0 ? this._write(channel.out, size) : 0;
    if (written < size) {
      const left = Buffer.from(channel.out.subarray(written, size));
      this.waiting++;
      this.socket.write(left, () => { this.waiting--; });
    }
    channel.clear();
  }

  _write(data, size) {
    try {
      return fs.writeSync(this.fd, data, 0, size);
    } catch (error) {
      if (error.code === 'EAGAIN') return 0;
      if (error.code === 'EPIPE' || error.code === 'ECONNRESET') return size; // the end is about to be read, too
      throw error;
    }
  }

  // The process is about to exit: what can be written at once is.
  lastFlush(channel) {
    if (this.waiting === 0 && channel.outBytes > 0) writeAllSync(this.fd, channel.out, channel.outBytes);
    channel.clear();
  }

  ref() {
    this.socket.ref();
  }

  unref() {
    this.socket.unref();
  }
}

const SLEEP = new Int32Array(new SharedArrayBuffer(4));
const RETRY_MS = 1;
const RETRIES_MAX = 5000;

// Writes all of it before it returns. A pipe whose reader is behind is waited for, within bounds; one without a reader is no error.
function writeAllSync(fd, data, size) {
  let at = 0;
  for (let retries = 0; at < size && retries < RETRIES_MAX;) {
    try {
      at += fs.writeSync(fd, data, at, size - at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      retries++;
      Atomics.wait(SLEEP, 0, 0, RETRY_MS);
    }
  }
}

module.exports = { Transport, writeAllSync };
