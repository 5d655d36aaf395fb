/**
 * Rows as they cross the boundary: columns of little-endian bytes.
 *
 * `host` is `packed` of the component's imports, or what `testing` puts in its place.
 */

import { micros, milliseconds } from './record.js';
import { Bools, Floats, Ints, bytes, numbers, placeOf, validityOf } from './typed.js';

const NONE = new Uint8Array(0);
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function rowNumbers(rows) {
  return bytes(rows instanceof Uint32Array ? rows : Uint32Array.from(rows));
}

function lengthOf(value) {
  if (value === null || value === undefined) return 0;
  if (value.BYTES_PER_ELEMENT === 1) return value.length;
  throw new TypeError(`a column is made of bytes, of text by Column.ofTexts, not of a ${typeof value}`);
}

/** Row i is `data.subarray(offsets[i], offsets[i + 1])`, or nothing. */
export class Column {
  constructor(offsets, data, validity = NONE) {
    this.offsets = offsets;
    this.data = data;
    this.validity = validity;
  }

  /** Of byte arrays and `null`s. */
  static of(values) {
    const offsets = new Uint32Array(values.length + 1);
    for (let i = 0; i < values.length; i++) offsets[i + 1] = offsets[i] + lengthOf(values[i]);
    const data = new Uint8Array(offsets[values.length]);
    for (let i = 0; i < values.length; i++) {
      if (values[i]) data.set(values[i], offsets[i]);
    }
    return new Column(offsets, data, validityOf(values));
  }

  /** Of text, byte arrays and `null`s: text is encoded at once, if each letter is a byte. */
  static ofTexts(values) {
    if (values.every((value) => typeof value === 'string')) {
      const joined = values.join('');
      const data = encoder.encode(joined);
      if (data.length === joined.length) {
        const offsets = new Uint32Array(values.length + 1);
        for (let i = 0; i < values.length; i++) offsets[i + 1] = offsets[i] + values[i].length;
        return new Column(offsets, data);
      }
    }
    return Column.of(values.map((value) => (typeof value === 'string' ? encoder.encode(value) : value)));
  }

  static unpack({ offsets, data, validity }) {
    // an array of our own: what the host gives is of another realm, and no `instanceof Uint8Array`
    return new Column(numbers(Uint32Array, offsets), bytes(data), validity);
  }

  pack() {
    return { offsets: bytes(this.offsets), data: this.data, validity: this.validity };
  }

  get length() {
    return this.offsets.length - 1;
  }

  /** Whether a row has a value. */
  has(row) {
    return this.validity.length === 0 || (this.validity[row >> 3] & (1 << (row & 7))) !== 0;
  }

  /** The bytes of a row; `null` where there is no value. */
  get(row) {
    return this.has(row) ? this.data.subarray(this.offsets[row], this.offsets[row + 1]) : null;
  }

  /** A function of a row's number that gives it as text, decoded at once; `null` unless each byte is a letter. */
  letters() {
    const { data, offsets } = this;
    let whole;
    try {
      whole = strict.decode(data);
    } catch {
      return null;
    }
    return whole.length === data.length ? (row) => whole.substring(offsets[row], offsets[row + 1]) : null;
  }

  /** A column of text as an array of strings, and of `null`s. */
  texts() {
    const text = this.letters() ?? ((row) => decoder.decode(this.get(row)));
    return Array.from({ length: this.length }, (_, row) => (this.has(row) ? text(row) : null));
  }

  /** The column of these rows. */
  gather(rows) {
    return Column.of(Array.from(rows, (row) => this.get(row)));
  }
}

/**
 * The rows of one call. Columns are fetched when first asked for. Typed columns are those that the module
 * selects, by name or by their place among them.
 */
export class Batch {
  #host;
  #handle;
  #selected;
  #fetched = new Map();

  constructor(host, handle, selected = []) {
    this.#host = host;
    this.#handle = handle;
    this.#selected = selected;
    this.length = handle.len();
  }

  /** Index into the node's inputs: a batch comes from one of them. */
  input() {
    return this.#handle.input();
  }

  /** Microseconds since the epoch, UTC: no row before it is expected any more. */
  watermark() {
    return Number(this.#handle.watermark());
  }

  keys() {
    return this.#once('keys', () => Column.unpack(this.#host.keys(this.#handle)));
  }

  values() {
    return this.#once('values', () => Column.unpack(this.#host.values(this.#handle)));
  }

  header(name) {
    return this.#once(`header ${name}`, () => Column.unpack(this.#host.header(this.#handle, name)));
  }

  /** Microseconds since the epoch, UTC, as BigInts. */
  eventTimes() {
    return this.#once('times', () => numbers(BigInt64Array, this.#host.eventTimes(this.#handle)));
  }

  /** Of the records in the stage's source topic, as BigInts. */
  offsets() {
    return this.#once('offsets', () => numbers(BigUint64Array, this.#host.offsets(this.#handle)));
  }

  bools(column) {
    return this.#typed(column, (at) => Bools.unpack(this.#host.getBools(this.#handle, at), this.length));
  }

  /** Of integers, or of times in microseconds since the epoch, UTC. */
  ints(column) {
    return this.#typed(column, (at) => Ints.unpack(this.#host.getInts(this.#handle, at)));
  }

  floats(column) {
    return this.#typed(column, (at) => Floats.unpack(this.#host.getFloats(this.#handle, at)));
  }

  /** Of bytes or text: `rows.bytes('carrier').texts()`. */
  bytes(column) {
    return this.#typed(column, (at) => Column.unpack(this.#host.getBytes(this.#handle, at)));
  }

  #typed(column, fetch) {
    const at = placeOf(this.#selected, column, 'selects');
    return this.#once(at, () => fetch(at));
  }

  #once(name, fetch) {
    let known = this.#fetched.get(name);
    if (known === undefined) {
      known = fetch();
      this.#fetched.set(name, known);
    }
    return known;
  }
}

/** What a row carries besides its value. */
export class Meta {
  #rows;

  constructor(rows, row) {
    this.#rows = rows;
    this.row = row;
  }

  /** Bytes, or `null`. */
  get key() {
    return this.#rows.keys().get(this.row);
  }

  /** Microseconds since the epoch, UTC. */
  get eventTime() {
    return Number(this.#rows.eventTimes()[this.row]);
  }

  /** Offset in the stage's source topic. */
  get offset() {
    return Number(this.#rows.offsets()[this.row]);
  }

  get input() {
    return this.#rows.input();
  }

  header(name) {
    return this.#rows.header(name).get(this.row);
  }
}

/**
 * What a batch becomes. Row numbers are arrays of numbers; a `Uint32Array` is not copied. The fields that
 * `setBools` and its sisters set are those that the module declares for the output, by name or by their
 * place among them.
 */
export class Outbox {
  #host;
  #handle;
  #declared;
  #port = 0;

  constructor(host, handle, declared = []) {
    this.#host = host;
    this.#handle = handle;
    this.#declared = declared;
  }

  /** Passes rows on as they are. */
  forward(port, rows) {
    this.#host.forward(this.#handle, port, rowNumbers(rows));
  }

  /** New rows; `parents[i]` is the row that row i came from. */
  emit(port, parents, keys, values) {
    this.#host.emit(this.#handle, port, rowNumbers(parents), keys.pack(), values.pack());
  }

  /**
   * New rows, whose columns are set by the calls after it; one that is not set is null. Key, event time and
   * headers are those of the parent; without parents each row of the batch gives one.
   */
  emitColumns(port, parents) {
    this.#port = port;
    this.#host.emitColumns(this.#handle, port, parents === undefined ? undefined : rowNumbers(parents));
  }

  /** Of the rows of the last `emitColumns`. */
  setKeys(keys) {
    this.#host.setKeys(this.#handle, keys.pack());
  }

  /** A column of the last `emitColumns`: any values, with `null` where there is none. */
  setBools(column, values) {
    this.#host.setBools(this.#handle, this.#at(column), Bools.of(values).pack());
  }

  /** The same of integers or times, as numbers or BigInts; a `BigInt64Array` is not copied. */
  setInts(column, values) {
    this.#host.setInts(this.#handle, this.#at(column), Ints.of(values).pack());
  }

  /** The same of numbers; a `Float64Array` is not copied. */
  setFloats(column, values) {
    this.#host.setFloats(this.#handle, this.#at(column), Floats.of(values).pack());
  }

  /** The same of bytes and text. */
  setBytes(column, values) {
    const made = values instanceof Column ? values : Column.ofTexts(Array.from(values));
    this.#host.setBytes(this.#handle, this.#at(column), made.pack());
  }

  #at(column) {
    return placeOf(this.#declared[this.#port] ?? [], column, 'declares');
  }

  /** Of the rows of the last emit; BigInts. */
  setEventTimes(times) {
    this.#host.setEventTimes(this.#handle, bytes(BigInt64Array.from(times, micros)));
  }

  /** Of the rows of the last emit. */
  setHeader(name, values) {
    this.#host.setHeader(this.#handle, name, values.pack());
  }

  reject(rows, code, message) {
    this.#host.reject(this.#handle, rowNumbers(rows), String(code), String(message));
  }

  retry(rows, afterMs, code, message) {
    this.#host.retry(this.#handle, rowNumbers(rows), milliseconds(afterMs), String(code), String(message));
  }
}
