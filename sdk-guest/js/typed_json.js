/**
 * Rows in JSON as typed columns and back, as the host does it, for `testing`: simple, not fast.
 *
 * What the host refuses with code `schema` is refused here; bytes are base64, times RFC 3339; a field that is
 * not there is null, one that nobody asked for is left alone.
 */

const decoder = new TextDecoder();
const TIME = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The cells of a row; throws where it does not fit. */
export function decode(value, fields) {
  if (value === null || fields.length === 0) return fields.map(() => null);
  let row;
  try {
    row = JSON.parse(decoder.decode(value));
  } catch (error) {
    throw new Error(`not a JSON object: ${error.message}`);
  }
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw new Error('not a JSON object');
  return fields.map(({ name, kind }) => {
    const found = Object.hasOwn(row, name) ? row[name] : null;
    const cell = found === null ? null : READ[kind](found);
    if (cell === undefined) throw new Error(`field \`${name}\` (${kind}): found ${JSON.stringify(found)}`);
    return cell;
  });
}

/** JSON.parse has rounded what is beyond 2^53: such a number is still too large to be exact. */
function whole(value) {
  return Number.isInteger(value) && Math.abs(value) < 2 ** 63 ? BigInt(value) : undefined;
}

/** Whether the calendar has it: `Date` takes February 30 for a day in March, and 24:00 for the next day. */
function isThere(moment) {
  const there = Date.parse(`${moment}Z`);
  return !Number.isNaN(there) && new Date(there).toISOString().startsWith(moment);
}

function time(value) {
  const found = typeof value === 'string' ? TIME.exec(value) : null;
  if (found === null) return whole(value);
  const [, day, clock, fraction = '', zone] = found;
  if (!isThere(`${day}T${clock}`)) return undefined;
  const millis = Date.parse(`${day}T${clock}${zone.toUpperCase()}`);
  return Number.isNaN(millis) ? undefined : BigInt(millis) * 1000n + BigInt(fraction.padEnd(6, '0').slice(0, 6));
}

const ofType = (type) => (value) => (typeof value === type ? value : undefined);

const READ = {
  bool: ofType('boolean'),
  int64: whole,
  float64: ofType('number'),
  string: ofType('string'),
  bytes: (value) => (BASE64.test(value) ? new Uint8Array(Buffer.from(value, 'base64')) : undefined),
  timestamp: time,
};

/** One row as a JSON object, its fields in the order they were declared. */
export function encode(fields, cells) {
  const shown = fields.map(({ name, kind }, i) => {
    const cell = cells[i];
    return `${JSON.stringify(name)}:${cell === null ? 'null' : SHOWN[kind](cell)}`;
  });
  return new Uint8Array(Buffer.from(`{${shown.join(',')}}`));
}

const SHOWN = {
  bool: String,
  int64: String,
  float64: (x) => {
    if (!Number.isFinite(x)) return 'null';
    return Number.isInteger(x) && Math.abs(x) < 1e16 ? x.toFixed(1) : String(x);
  },
  string: (bytes) => JSON.stringify(decoder.decode(bytes)),
  bytes: (bytes) => JSON.stringify(Buffer.from(bytes).toString('base64')),
  timestamp: timeShown,
};

/** RFC 3339, where it reaches. */
function timeShown(micros) {
  const [seconds, rest] = [micros / 1_000_000n, micros % 1_000_000n];
  const [whole, fraction] = rest < 0n ? [seconds - 1n, rest + 1_000_000n] : [seconds, rest];
  const moment = new Date(Number(whole) * 1000);
  const year = moment.getUTCFullYear();
  if (!(year >= 0 && year < 10_000)) return String(micros);
  return JSON.stringify(moment.toISOString().replace('.000Z', `.${String(fraction).padStart(6, '0')}Z`));
}
