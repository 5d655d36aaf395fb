/** What a function over rows returns and throws. What a record does not say is its parent's. */

const MS_MAX = 2 ** 32 - 1;

/** A time that the contract has room for: what is beyond is its end. */
export function milliseconds(value) {
  return Math.ceil(Math.min(Math.max(0, Number(value)), MS_MAX)) || 0;
}

const TIMES = 2n ** 63n;

/** A time in microseconds, of those that a record can have. */
export function micros(value) {
  const time = BigInt(value);
  if (time >= -TIMES && time < TIMES) return time;
  throw new Reject('encode', `a time of ${String(time).length} digits does not fit 64 bits of microseconds`);
}

/** Of a module: what it returned would be lost, since nobody awaits it. */
export function refuseAsync(each) {
  if (!/^\[object Async/.test(Object.prototype.toString.call(each))) return each;
  throw new TypeError('functions of a module are not `async`: nobody awaits what they return');
}

/** What a function returned, which must not be a promise. */
export function settled(value) {
  if (typeof value !== 'object' || value === null || typeof value.then !== 'function') return value;
  throw new Reject('encode', 'a promise was returned, and nobody awaits it');
}

/** This row will never succeed. `code` is short and stable, `message` is for people. */
export class Reject extends Error {
  constructor(code, message = '') {
    super(String(message));
    this.code = String(code);
  }
}

/** A passing trouble: present this row and those after it again, after so many milliseconds. */
export class Retry extends Error {
  constructor(afterMs, code, message = '') {
    super(String(message));
    this.afterMs = milliseconds(afterMs);
    this.code = String(code);
  }
}

/** A record without a value: in a compacted topic it deletes its key. */
export const TOMBSTONE = Symbol('rustmq.TOMBSTONE');

/**
 * An output with its own key, event time, headers or port.
 *
 * `key` is bytes, text, or `null` for no key; `eventTime` is in microseconds since the epoch, UTC;
 * `headers` is an object of bytes or text; `port` is an output by its name, the first one otherwise.
 */
export class Record {
  constructor(value, { key, eventTime, headers, port } = {}) {
    this.value = value;
    this.key = key;
    this.eventTime = eventTime;
    this.headers = headers;
    this.port = port;
  }
}

const encoder = new TextEncoder();

/** Of a key or a header. */
export function asBytes(value) {
  if (value === null || value instanceof Uint8Array) return value;
  if (typeof value === 'string') return encoder.encode(value);
  throw new TypeError(`bytes or text, not ${typeof value}`);
}
