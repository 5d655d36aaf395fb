/**
 * Columns of numbers and bools, as they cross the boundary, and what a field may be.
 *
 * A column has a value for every row, present or not; validity is empty while every row is present.
 */

const NONE = new Uint8Array(0);
const WORD = 2 ** 32;

/** What a field may be, as the host names it; with a `?` behind it, it may be null. */
export const KINDS = Object.freeze(['bool', 'int64', 'float64', 'string', 'bytes', 'timestamp']);

/** Fields of `{ carrier: 'string', delay: 'float64?' }`. */
export function fieldsOf(described) {
  const fields = Object.entries(described).map(([name, said]) => {
    const optional = typeof said === 'string' && said.endsWith('?');
    const kind = optional ? said.slice(0, -1) : said;
    if (!KINDS.includes(kind)) {
      throw new TypeError(`field ${name} may be ${KINDS.join(', ')}, each with a ? where it may be null; not ${said}`);
    }
    return { name, kind, optional };
  });
  if (fields.length === 0) throw new TypeError("rows have at least one field: { name: 'string' }");
  return fields;
}

/** The number of a field. */
export function placeOf(fields, column, what) {
  if (typeof column !== 'string') return column;
  const place = fields.findIndex(({ name }) => name === column);
  if (place >= 0) return place;
  const known = fields.map(({ name }) => name).join(', ');
  throw new RangeError(`no field ${column}: the module ${what} ${known || 'none'}`);
}

/** Numbers of bytes, which may lie anywhere. */
export function numbers(Kind, bytes) {
  const whole = bytes.byteOffset % Kind.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new Kind(whole.buffer, whole.byteOffset, whole.byteLength / Kind.BYTES_PER_ELEMENT);
}

export function bytes(typed) {
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

/** Which of these values are there: nothing, if all are. */
export function validityOf(values) {
  if (!values.some((value) => value === null || value === undefined)) return NONE;
  const validity = new Uint8Array((values.length + 7) >> 3);
  values.forEach((value, i) => {
    if (value !== null && value !== undefined) validity[i >> 3] |= 1 << (i & 7);
  });
  return validity;
}

/** What the columns share; `get` and iteration give `null` where a row is absent. */
class Values {
  constructor(values, validity = NONE) {
    this.values = values;
    this.validity = validity;
  }

  get length() {
    return this.values.length;
  }

  /** Whether a row has a value. */
  has(row) {
    return this.validity.length === 0 || (this.validity[row >> 3] & (1 << (row & 7))) !== 0;
  }

  get(row) {
    return this.has(row) ? this.values[row] : null;
  }

  * [Symbol.iterator]() {
    for (let row = 0; row < this.length; row++) yield this.get(row);
  }
}

/** Values and `null`s as an array, all of one type. */
function listed(values, type, name) {
  const given = Array.from(values);
  const wrong = given.find((value) => typeof value !== type && value !== null && value !== undefined);
  if (wrong !== undefined) throw new TypeError(`${String(wrong)} is no ${name}`);
  return given;
}

/** Numbers of eight bytes each, which cross as they are. */
class Numbers extends Values {
  pack() {
    return { values: bytes(this.values), validity: this.validity };
  }
}

/** Integers of 64 bits, or times in microseconds: `values` is a `BigInt64Array`. */
export class Ints extends Numbers {
  /** Of integers, as numbers or BigInts, and `null`s; a `BigInt64Array` is not copied. */
  static of(values) {
    if (values instanceof Ints) return values;
    if (values instanceof BigInt64Array) return new Ints(values);
    const given = Array.from(values);
    const made = new BigInt64Array(given.length);
    // two halves: a BigInt for each would cost far more
    const halves = new Int32Array(made.buffer);
    given.forEach((value, i) => {
      if (typeof value === 'bigint') {
        if (BigInt.asIntN(64, value) !== value) throw new RangeError(`${value} does not fit 64 bits`);
        made[i] = value;
      } else if (Number.isSafeInteger(value)) {
        halves[2 * i] = value | 0;
        halves[2 * i + 1] = Math.floor(value / WORD);
      } else if (value !== null && value !== undefined) {
        throw new RangeError(`${value} is no integer`);
      }
    });
    return new Ints(made, validityOf(given));
  }

  /** A function of a row's number that gives it as a number: NaN where that would not be exact, `null` for none. */
  exact() {
    const halves = new Int32Array(this.values.buffer, this.values.byteOffset, 2 * this.values.length);
    const exact = (row) => {
      const number = halves[2 * row + 1] * WORD + (halves[2 * row] >>> 0);
      return Number.isSafeInteger(number) ? number : NaN;
    };
    return this.validity.length === 0 ? exact : (row) => (this.has(row) ? exact(row) : null);
  }

  static unpack({ values, validity }) {
    return new Ints(numbers(BigInt64Array, values), validity);
  }
}

/** `values` is a `Float64Array`. */
export class Floats extends Numbers {
  /** Of numbers and `null`s; a `Float64Array` is not copied. */
  static of(values) {
    if (values instanceof Floats) return values;
    if (values instanceof Float64Array) return new Floats(values);
    const given = listed(values, 'number', 'number');
    return new Floats(Float64Array.from(given, (value) => value ?? 0), validityOf(given));
  }

  static unpack({ values, validity }) {
    return new Floats(numbers(Float64Array, values), validity);
  }
}

/** `values` is an array of bools. */
export class Bools extends Values {
  /** Of bools and `null`s. */
  static of(values) {
    if (values instanceof Bools) return values;
    const given = listed(values, 'boolean', 'bool');
    return new Bools(given.map(Boolean), validityOf(given));
  }

  static unpack({ values, validity }, length) {
    const bools = Array.from({ length }, (_, row) => (values[row >> 3] & (1 << (row & 7))) !== 0);
    return new Bools(bools, validity);
  }

  pack() {
    const bits = new Uint8Array((this.length + 7) >> 3);
    this.values.forEach((value, row) => {
      if (value) bits[row >> 3] |= 1 << (row & 7);
    });
    return { values: bits, validity: this.validity };
  }
}
