/**
 * Objects as rows of typed columns: read from those that a module selects, written to those that it
 * declares.
 *
 * The fields are the columns, in order; a field without a `?` refuses rows where it is null.
 */

import { Column } from './batch.js';
import { Reject, settled } from './record.js';
import { Bools, Floats, Ints } from './typed.js';

/** A function of a row's number that gives the row as an object, or refuses it. */
export function takeRows(fields, rows) {
  const cells = fields.map((field, place) => CELLS[field.kind].take(field, rows, place));
  const names = fields.map(({ name }) => name);
  return (row) => {
    const taken = {};
    for (let i = 0; i < cells.length; i++) taken[names[i]] = cells[i](row);
    return taken;
  };
}

/** Says what a null is: `null` where the field may be one. */
function orNull(field, column, take) {
  if (column.validity.length === 0) return take;
  const { name, optional } = field;
  return (row) => {
    if (column.has(row)) return take(row);
    if (optional) return null;
    throw new Reject('null', `field \`${name}\` is null`);
  };
}

function takeValues(field, column) {
  const { values } = column;
  return orNull(field, column, (row) => values[row]);
}

function takeInts(field, rows, place) {
  const column = rows.ints(place);
  const exact = column.exact();
  return orNull(field, column, (row) => {
    const number = exact(row);
    if (number === number) return number;
    throw new Reject('range', `field \`${field.name}\` is beyond 2^53, where numbers are not exact`);
  });
}

function takeText(field, rows, place) {
  const column = rows.bytes(place);
  const texts = column.texts();
  return orNull(field, column, (row) => texts[row]);
}

function takeBytes(field, rows, place) {
  const column = rows.bytes(place);
  return orNull(field, column, (row) => column.get(row));
}

const ints = {
  take: takeInts,
  fits: (value) => Number.isSafeInteger(value) || (typeof value === 'bigint' && BigInt.asIntN(64, value) === value),
  set: (out, place, cells) => out.setInts(place, Ints.of(cells)),
};

/** By kind: how a cell is read, what it may be, and how a column of it is set. */
const CELLS = {
  bool: {
    take: (field, rows, place) => takeValues(field, rows.bools(place)),
    fits: (value) => typeof value === 'boolean',
    set: (out, place, cells) => out.setBools(place, Bools.of(cells)),
  },
  int64: ints,
  timestamp: ints,
  float64: {
    take: (field, rows, place) => takeValues(field, rows.floats(place)),
    fits: (value) => typeof value === 'number',
    set: (out, place, cells) => out.setFloats(place, Floats.of(cells)),
  },
  string: {
    take: takeText,
    fits: (value) => typeof value === 'string',
    set: (out, place, cells) => out.setBytes(place, Column.ofTexts(cells)),
  },
  bytes: {
    take: takeBytes,
    fits: (value) => value instanceof Uint8Array,
    set: (out, place, cells) => out.setBytes(place, Column.of(cells)),
  },
};

/** What a row says of a field: not what every object has, as `constructor`. */
function cellOf(row, name) {
  return name in Object.prototype && !Object.hasOwn(row, name) ? undefined : row[name];
}

/** A row on its way out, if it is one: an object whose fields fit, and no other. */
export function checkedRow(fields, value) {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) {
    throw new Reject('encode', `the module declares rows, but returned ${shown(value)}`);
  }
  settled(value);
  let known = 0;
  for (const { name, kind, optional } of fields) {
    const cell = cellOf(value, name);
    if (cell !== undefined) known += 1;
    if (cell === null || cell === undefined) {
      if (optional) continue;
      throw new Reject('encode', `field \`${name}\` is ${cell}, and is declared without a ?`);
    }
    if (!CELLS[kind].fits(cell)) throw new Reject('encode', `field \`${name}\`: ${kind} cannot be ${shown(cell)}`);
  }
  if (Object.keys(value).length <= known) return value;
  const more = Object.keys(value).find((key) => cellOf(value, key) !== undefined && !fields.some(({ name }) => name === key));
  if (more !== undefined) throw new Reject('encode', `no field \`${more}\` is declared`);
  return value;
}

/** Sets the columns of rows that were checked. */
export function setRows(fields, rows, out) {
  fields.forEach(({ name, kind }, place) => {
    CELLS[kind].set(out, place, rows.map((row) => cellOf(row, name) ?? null));
  });
}

function shown(value) {
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length <= 60 ? text : `${text.slice(0, 60)}…`;
}
