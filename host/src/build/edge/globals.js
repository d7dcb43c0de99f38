// What the runtime itself lacks of a web's or Node's globals and a service can have: `console` (to
// standard error), `TextEncoder` and `TextDecoder` for UTF-8, `crypto.getRandomValues` and
// `crypto.randomUUID`, and a `Math.random` that differs between instances.

import { getStderr } from 'wasmbay-raw:wasi:cli/stderr@VERSION';
import { insecureSeed } from 'wasmbay-raw:wasi:random/insecure-seed@VERSION';
import { getRandomBytes } from 'wasmbay-raw:wasi:random/random@VERSION';
import { running, u64 } from './values.js';

class TextEncoder {
  get encoding() {
    return 'utf-8';
  }

  encode(text = '') {
    const bytes = new Uint8Array(3 * `${text}`.length);
    return bytes.slice(0, this.encodeInto(text, bytes).written);
  }

  encodeInto(text, bytes) {
    let [read, written] = [0, 0];
    for (const char of `${text}`.toWellFormed()) {
      const code = char.codePointAt(0);
      const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      if (written + size > bytes.length) break;
      if (size === 1) {
        bytes[written] = code;
      } else {
        bytes[written] = (0xf00 >> size) & 0xff | (code >> (6 * (size - 1)));
        for (let at = 1; at < size; at++) {
          bytes[written + at] = 0x80 | ((code >> (6 * (size - 1 - at))) & 0x3f);
        }
      }
      written += size;
      read += char.length;
    }
    return { read, written };
  }
}

const LEAST = [0, 0, 0x80, 0x800, 0x10000];

class TextDecoder {
  #rest = [];

  constructor(label = 'utf-8', { fatal = false, ignoreBOM = false } = {}) {
    if (!['utf-8', 'utf8', 'unicode-1-1-utf-8'].includes(`${label}`.trim().toLowerCase())) {
      throw new RangeError(`TextDecoder knows UTF-8 only, not ${label}`);
    }
    Object.assign(this, { fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM), started: false });
    for (const name of ['fatal', 'ignoreBOM', 'started']) {
      Object.defineProperty(this, name, { enumerable: false });
    }
  }

  get encoding() {
    return 'utf-8';
  }

  decode(source = new Uint8Array(0), { stream = false } = {}) {
    const given = ArrayBuffer.isView(source)
      ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
      : new Uint8Array(source);
    const bytes = this.#rest.length ? Uint8Array.from([...this.#rest, ...given]) : given;
    this.#rest = [];
    let text = '';
    for (let at = 0; at < bytes.length;) {
      const [code, size] = one(bytes, at);
      if (size === 0 && stream) {
        this.#rest = [...bytes.slice(at)];
        break;
      }
      if (code < 0 && this.fatal) {
        this.started = false;
        throw new TypeError(`byte ${at} is not UTF-8`);
      }
      const skip = code === 0xfeff && !this.started && !this.ignoreBOM;
      if (!skip) text += String.fromCodePoint(code < 0 ? 0xfffd : code);
      this.started = true;
      at += size || bytes.length - at;
    }
    if (!stream) this.started = false;
    return text;
  }
}

// `[code point, bytes]` at a place: -1 where it is not UTF-8, and no bytes where it ends too early.
function one(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return [first, 1];
  const size = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xc2 && first < 0xe0 ? 2 : 0;
  if (size === 0) return [-1, 1];
  let code = first & (0x7f >> size);
  for (let next = 1; next < size; next++) {
    if (at + next >= bytes.length) return [-1, 0];
    const byte = bytes[at + next];
    code = (code << 6) | (byte & 0x3f);
    const surrogate = next === 1 && size === 3 && code >= 0x360 && code < 0x380;
    const outside = next === 1 && size === 4 && (code < 0x10 || code >= 0x110);
    const long = next === 1 && size === 3 && code < 0x20;
    if ((byte & 0xc0) !== 0x80 || surrogate || outside || long) return [-1, next];
  }
  return [code < LEAST[size] ? -1 : code, size];
}

// As much of a value as a line of a log needs.
function shown(value) {
  if (typeof value === 'string') return value;
  if (typeof value === 'bigint') return `${value}n`;
  if (value instanceof Error) return `${value.name}: ${value.message}\n${value.stack ?? ''}`.trimEnd();
  if (typeof value !== 'object' || value === null) return String(value);
  const seen = new Set();
  const plain = (_, part) => {
    if (typeof part === 'bigint') return `${part}n`;
    if (typeof part !== 'object' || part === null) return part;
    if (seen.has(part)) return '[seen]';
    seen.add(part);
    if (part instanceof Error) return shown(part);
    if (part instanceof Map || part instanceof Set) return [...part];
    return ArrayBuffer.isView(part) ? Array.from(part) : part;
  };
  try {
    return JSON.stringify(value, plain);
  } catch {
    return String(value);
  }
}

const encoder = new TextEncoder();

// The most that one write takes.
const CHUNK = 4096;

function print(values) {
  const bytes = encoder.encode(`${values.map(shown).join(' ')}\n`);
  const stderr = getStderr();
  try {
    for (let at = 0; at < bytes.length; at += CHUNK) {
      stderr.blockingWriteAndFlush(bytes.slice(at, at + CHUNK));
    }
  } catch {
    // Nobody reads it; the service goes on.
  } finally {
    stderr[Symbol.dispose]();
  }
}

const console = {
  assert: (fine, ...values) => fine || print(['assertion failed', ...values]),
  trace: (...values) => print([...values, new Error('trace').stack]),
};
for (const name of ['debug', 'dir', 'error', 'info', 'log', 'warn']) {
  console[name] = (...values) => print(values);
}

function bytesOf(count) {
  if (!running()) {
    throw new Error('random values taken when the service is built would be the same in every instance: take them inside functions');
  }
  return getRandomBytes(u64.lower(count));
}

const crypto = {
  getRandomValues(array) {
    if (!ArrayBuffer.isView(array) || array instanceof DataView) {
      throw new TypeError('getRandomValues fills an array of integers');
    }
    if (array.byteLength > 65536) throw new RangeError('getRandomValues gives 65536 bytes at most');
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(bytesOf(array.byteLength));
    return array;
  },

  randomUUID() {
    const bytes = Uint8Array.from(bytesOf(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  },
};

// The engine's own begins anew with the same number in every instance: the generator sfc32, seeded
// when it is first used while calls are served.
const builtIn = Math.random;
let state;

function random() {
  if (!running()) return builtIn();
  if (!state) {
    const parts = insecureSeed().map((half) => u64.lift(half));
    state = parts.flatMap((half) => [Number(half & 0xffff_ffffn) | 0, Number(half >> 32n) | 0]);
    for (let round = 0; round < 15; round++) next();
  }
  return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
}

function next() {
  let [a, b, c, count] = state;
  const made = (a + b + count) | 0;
  count = (count + 1) | 0;
  a = b ^ (b >>> 9);
  b = (c + (c << 3)) | 0;
  c = ((c << 21) | (c >>> 11)) + made | 0;
  state = [a, b, c, count];
  return made;
}

Math.random = random;

for (const [name, value] of Object.entries({ TextEncoder, TextDecoder, console, crypto })) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}
