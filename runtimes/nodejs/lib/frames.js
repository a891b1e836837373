'use strict';
// Frames of docs/protocol.md: parses all frames of a read, collects frames to write into one buffer.
// Owns: bytes read but not parsed, events and results that travel in parts, frames not yet written.
// Must not know: handlers, and how bytes come and go (transport.js).
//
// One buffer for everything that is written in a turn, filled in place: 64 answers are one write and no allocation.

const MAGIC = 0x01534146; // "FAS", version 1, little-endian
const HEADER_BYTES = 64;
const MORE = 1;
const STDERR = 2;
const HELLO = 1, LOAD = 2, READY = 3, INVOKE = 4, REQUEST_PART = 5, RESPONSE = 6;
const WINDOW = 7, CANCEL = 8, ERROR = 9, LOG = 10, SHUTDOWN = 11, PING = 12, PONG = 13;

// Bounds of the protocol (docs/protocol.md sections 2 and 5; engine/limits has the same).
const META_BYTES_MAX = 65536;
const EVENT_FRAME_BYTES_MAX = 262144;
const RESULT_FRAME_BYTES_MAX = 262144;
const RESULT_PART_BYTES_MAX = 65536;
const RESULT_BYTES_MAX = 6291556;
const RESULT_CREDIT_BYTES = 262144;
const LOG_FRAME_BYTES_MAX = 65536;
// The write buffer starts small, for there are many idle processes, and does not stay larger than this.
const OUT_BYTES = 16384;
const OUT_KEPT_BYTES = 1048576;
const UTF8_BYTES_PER_UNIT_MAX = 3;

const ZEROS = Buffer.alloc(HEADER_BYTES);
const TWO_32 = 4294967296;
const CANCELLED = '{"errorMessage":"the invocation was cancelled","errorType":"Runtime.Cancelled"}';

// Ids have 64 bits; as a number where that is exact, else as text.
function keyOf(low, high) {
  return high < 0x200000 ? high * TWO_32 + low : `${high}:${low}`;
}

class Garbage extends Error {}

class Channel {
  // `on` has onLoad(meta), onInvoke(low, high, deadlineMs, metaText, eventText), onCancel(key), onPing(), onShutdown().
  constructor(on) {
    this.on = on;
    this.out = Buffer.allocUnsafeSlow(OUT_BYTES);
    this.outBytes = 0;
    this.rest = null;
    this.parts = new Map(); // key -> {low, high, deadlineMs, meta, pieces}
    this.sending = new Map(); // key -> {low, high, body, at, credit}
  }

  // --- reading --------------------------------------------------------------------------------------------

  // Parses `size` bytes of `data` (which is reused by the caller), acting on each frame. Throws Garbage.
  consume(data, size) {
    if (this.rest !== null) {
      data = Buffer.concat([this.rest, data.subarray(0, size)]);
      size = data.length;
      this.rest = null;
    }
    let at = 0;
    while (size - at >= HEADER_BYTES) {
      const metaBytes = data.readUInt32LE(at + 24);
      const bodyBytes = data.readUInt32LE(at + 28);
      if (data.readUInt32LE(at) !== MAGIC || metaBytes > META_BYTES_MAX || bodyBytes > EVENT_FRAME_BYTES_MAX) {
        throw new Garbage(`frame begins with ${data.toString('hex', at, at + 8)}, meta of ${metaBytes} and body of ${bodyBytes} bytes`);
      }
      const meta = at + HEADER_BYTES;
      const body = meta + metaBytes;
      const end = body + bodyBytes;
      if (end > size) break;
      const kind = data.readUInt32LE(at + 4); // type, and flags in the upper half
      if (kind === INVOKE) {
        this.on.onInvoke(data.readUInt32LE(at + 8), data.readUInt32LE(at + 12), deadlineMs(data, at),
          data.utf8Slice(meta, body), data.utf8Slice(body, end));
      } else {
        this._other(kind, data, at, meta, body, end);
      }
      at = end;
    }
    if (at < size) this.rest = Buffer.from(data.subarray(at, size));
  }

  _other(kind, data, at, meta, body, end) {
    const low = data.readUInt32LE(at + 8);
    const high = data.readUInt32LE(at + 12);
    const key = keyOf(low, high);
    const type = kind & 0xffff;
    const more = (kind >>> 16 & MORE) !== 0;
    if (type === INVOKE && more) {
      const pieces = [Buffer.from(data.subarray(body, end))];
      this.parts.set(key, { low, high, deadlineMs: deadlineMs(data, at), meta: data.utf8Slice(meta, body), pieces });
    } else if (type === REQUEST_PART) {
      const begun = this.parts.get(key);
      if (begun === undefined) return; // cancelled before its event was complete
      begun.pieces.push(Buffer.from(data.subarray(body, end)));
      if (more) return;
      this.parts.delete(key);
      this.on.onInvoke(low, high, begun.deadlineMs, begun.meta, Buffer.concat(begun.pieces).toString());
    } else if (type === WINDOW) {
      const sending = this.sending.get(key);
      if (sending === undefined) return; // its last part is on its way already
      sending.credit += data.readUInt32LE(at + 32);
      this._pump(key, sending);
    } else if (type === CANCEL) {
      if (this.parts.delete(key) || this.sending.delete(key)) this.addCancelled(low, high);
      else this.on.onCancel(key);
    } else if (type === LOAD) {
      this.on.onLoad(JSON.parse(data.utf8Slice(meta, body)));
    } else if (type === PING) {
      this.addText(PONG, 0, 0, 0, '');
      this.on.onPing();
    } else if (type === SHUTDOWN) {
      this.on.onShutdown();
    } else {
      throw new Garbage(`frame begins with ${data.toString('hex', at, at + 8)}`);
    }
  }

  // --- writing --------------------------------------------------------------------------------------------

  // Makes room for a frame with a body of at most `bodyBytes`; returns where the frame begins, its header cleared.
  _header(type, flags, low, high, bodyBytes) {
    const at = this.outBytes;
    const need = at + HEADER_BYTES + bodyBytes;
    if (need > this.out.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(need, this.out.length * 2));
      this.out.copy(grown, 0, 0, at);
      this.out = grown;
    }
    const out = this.out;
    ZEROS.copy(out, at);
    out.writeUInt32LE(MAGIC, at);
    out.writeUInt32LE(type | flags << 16, at + 4);
    out.writeUInt32LE(low, at + 8);
    out.writeUInt32LE(high, at + 12);
    return at;
  }

  // A frame whose body is text.
  addText(type, flags, low, high, text) {
    const at = this._header(type, flags, low, high, text.length * UTF8_BYTES_PER_UNIT_MAX);
    const bodyBytes = this.out.utf8Write(text, at + HEADER_BYTES);
    this.out.writeUInt32LE(bodyBytes, at + 28);
    this.outBytes = at + HEADER_BYTES + bodyBytes;
  }

  // A frame whose body is bytes.
  addBytes(type, flags, low, high, body) {
    const at = this._header(type, flags, low, high, body.length);
    body.copy(this.out, at + HEADER_BYTES);
    this.out.writeUInt32LE(body.length, at + 28);
    this.outBytes = at + HEADER_BYTES + body.length;
  }

  addMeta(type, meta) {
    const text = JSON.stringify(meta);
    this.addText(type, 0, 0, 0, text);
    const at = this.outBytes - HEADER_BYTES - Buffer.byteLength(text);
    this.out.writeUInt32LE(this.out.readUInt32LE(at + 28), at + 24);
    this.out.writeUInt32LE(0, at + 28);
  }

  addError(low, high, text) {
    this.addText(ERROR, 0, low, high, text);
  }

  // What a cancelled invocation is answered with: nobody reads it, but the engine learns that it has ended.
  addCancelled(low, high) {
    this.addText(ERROR, 0, low, high, CANCELLED);
  }

  addLog(toStderr, low, high, text) {
    const flags = toStderr ? STDERR : 0;
    if (text.length * UTF8_BYTES_PER_UNIT_MAX <= LOG_FRAME_BYTES_MAX) {
      this.addText(LOG, flags, low, high, text);
      return;
    }
    const body = Buffer.from(text);
    for (let at = 0; at < body.length; at += LOG_FRAME_BYTES_MAX) {
      this.addBytes(LOG, flags, low, high, body.subarray(at, at + LOG_FRAME_BYTES_MAX));
    }
  }

  // A result, text or Buffer. Returns false if it is larger than any may be.
  addResult(low, high, result) {
    if (typeof result === 'string') {
      if (result.length * UTF8_BYTES_PER_UNIT_MAX <= RESULT_FRAME_BYTES_MAX) {
        this.addText(RESPONSE, 0, low, high, result);
        return true;
      }
      result = Buffer.from(result);
    }
    if (result.length > RESULT_BYTES_MAX) return false;
    if (result.length <= RESULT_FRAME_BYTES_MAX) {
      this.addBytes(RESPONSE, 0, low, high, result);
    } else {
      const key = keyOf(low, high);
      const sending = { low, high, body: result, at: 0, credit: RESULT_CREDIT_BYTES };
      this.sending.set(key, sending);
      this._pump(key, sending);
    }
    return true;
  }

  _pump(key, sending) {
    const { low, high, body } = sending;
    while (sending.credit > 0) {
      const end = Math.min(sending.at + RESULT_PART_BYTES_MAX, sending.at + sending.credit, body.length);
      const last = end === body.length;
      this.addBytes(RESPONSE, last ? 0 : MORE, low, high, body.subarray(sending.at, end));
      sending.credit -= end - sending.at;
      sending.at = end;
      if (last) {
        this.sending.delete(key);
        return;
      }
    }
  }

  // Everything was written or copied away.
  clear() {
    this.outBytes = 0;
    if (this.out.length > OUT_KEPT_BYTES) this.out = Buffer.allocUnsafeSlow(OUT_BYTES);
  }
}

// Milliseconds of the monotonic clock (process.hrtime has the same zero), 0 for none.
function deadlineMs(data, at) {
  return (data.readUInt32LE(at + 20) * TWO_32 + data.readUInt32LE(at + 16)) / 1e6;
}

module.exports = { Channel, Garbage, keyOf, HELLO, READY, RESULT_BYTES_MAX };
