/**
 * Rows as they cross the boundary: columns of little-endian bytes.
 *
 * `host` is `packed` of the component's imports, or what `testing` puts in its place.
 */

const NONE = new Uint8Array(0);

/** Numbers of bytes, which may lie anywhere. */
function numbers(Kind, bytes) {
  const whole = bytes.byteOffset % Kind.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new Kind(whole.buffer, whole.byteOffset, whole.byteLength / Kind.BYTES_PER_ELEMENT);
}

function bytes(typed) {
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

function rowNumbers(rows) {
  return bytes(rows instanceof Uint32Array ? rows : Uint32Array.from(rows));
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
    let missing = false;
    for (let i = 0; i < values.length; i++) {
      missing ||= values[i] === null;
      offsets[i + 1] = offsets[i] + (values[i] === null ? 0 : values[i].length);
    }
    const data = new Uint8Array(offsets[values.length]);
    const validity = missing ? new Uint8Array((values.length + 7) >> 3) : NONE;
    for (let i = 0; i < values.length; i++) {
      if (values[i] === null) continue;
      data.set(values[i], offsets[i]);
      if (missing) validity[i >> 3] |= 1 << (i & 7);
    }
    return new Column(offsets, data, validity);
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

  /** The column of these rows. */
  gather(rows) {
    return Column.of(Array.from(rows, (row) => this.get(row)));
  }
}

/** The rows of one call. Columns are fetched when first asked for. */
export class Batch {
  #host;
  #handle;
  #fetched = new Map();

  constructor(host, handle) {
    this.#host = host;
    this.#handle = handle;
    this.length = handle.len();
  }

  /** Index into the node's inputs: a batch comes from one of them. */
  input() {
    return this.#handle.input();
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

/** What a batch becomes. Row numbers are arrays of numbers; a `Uint32Array` is not copied. */
export class Outbox {
  #host;
  #handle;

  constructor(host, handle) {
    this.#host = host;
    this.#handle = handle;
  }

  /** Passes rows on as they are. */
  forward(port, rows) {
    this.#host.forward(this.#handle, port, rowNumbers(rows));
  }

  /** New rows; `parents[i]` is the row that row i came from. */
  emit(port, parents, keys, values) {
    this.#host.emit(this.#handle, port, rowNumbers(parents), keys.pack(), values.pack());
  }

  /** Of the rows of the last emit; BigInts. */
  setEventTimes(times) {
    this.#host.setEventTimes(this.#handle, bytes(BigInt64Array.from(times)));
  }

  /** Of the rows of the last emit. */
  setHeader(name, values) {
    this.#host.setHeader(this.#handle, name, values.pack());
  }

  reject(rows, code, message) {
    this.#host.reject(this.#handle, rowNumbers(rows), code, message);
  }

  retry(rows, afterMs, code, message) {
    this.#host.retry(this.#handle, rowNumbers(rows), afterMs, code, message);
  }
}
