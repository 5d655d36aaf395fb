/**
 * The loops over rows.
 *
 * A row's error refuses that row; a retry ends the batch there; rows refused one after the other for
 * the same reason share a call; rows are collected by port, so the order of a port is the order of the
 * input. What a refused row changed of the state is taken back.
 */

import { Batch, Column, Meta, Outbox } from './batch.js';
import { written } from './json.js';
import { said } from './place.js';
import { Record, Reject, Retry, TOMBSTONE, asBytes, micros, refuseAsync, settled } from './record.js';
import { checkedRow, setRows, takeRows } from './row.js';
import { State } from './state.js';
import * as telemetry from './telemetry.js';
import { fieldsOf } from './typed.js';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const shown = new TextDecoder();

/** Why a module cannot open, or a whole batch cannot be processed. */
export class Failure extends Error {
  constructor(code, message = '') {
    super(String(message));
    this.code = String(code);
  }
}

/**
 * One row to one: what is returned is the new value; `null` or `undefined` drops the row.
 *
 * `value` says how the value is read: `'json'` (the default), `'text'`, `'bytes'`, with a `?` behind the last two
 * `null` where a record has none; or `select` says which
 * fields of typed columns it has, as `{ carrier: 'string', delay: 'float64?' }`, and `declare` those of what
 * is returned; `params` is the JSON Schema of the node's params, if you want them checked. A field is bool,
 * int64, float64, string, bytes or timestamp (microseconds since the epoch, UTC), with a `?` where it may
 * be null.
 *
 * With `stateSchema`, the version of how it keeps what it keeps, the function is `(value, meta, state, params)`.
 * `onTimer: (key, time, state, params) => …` is called for each timer that the watermark has passed, and what it
 * returns goes out as what the function returns. `migrate: { 1: (key, value, state) => … }` takes over the entries
 * that an older version kept with that schema: the value is read from JSON, or `{ 1: { value: 'bytes', each } }`
 * says how; the state is empty before the first, and what is put there is kept from now on.
 */
export function map(each, options) {
  return new Making(each, options);
}

/** One row to many: what is returned, or yielded, one after the other. */
export function flatMap(each, options) {
  return new FlatMap(each, options);
}

/** Keeps the rows for which it returns true, as they are. */
export function filter(each, options) {
  return new Filter(each, options);
}

/** Sends each row as it is to the output whose name is returned: `route(['small', 'big'], (n) => …)`. */
export function route(ports, each, options) {
  if (!Array.isArray(ports) || ports.length === 0) {
    throw new TypeError("name the outputs: route(['small', 'big'], (value) => …)");
  }
  return new Route(each, { ...options, ports });
}

/**
 * Whole batches: `batch((rows, out, params) => …)`, with a `Batch` and an `Outbox`; `select` says which fields
 * `rows` has as columns, `declare` which `out` is given: of every output, or by output as `{ out: { … } }`.
 *
 * With `stateSchema` it is `(rows, out, state, params)`, and `onTimers: (fired, out, state, params) => …` is given
 * all timers that the watermark has passed: their keys are those of the rows, their times the event times.
 */
export function batch(work, options) {
  return new Whole(work, options);
}

const OPTIONS = 'value, select, declare, params, stateSchema, onTimer (of a batch onTimers), migrate';

/** A function that has become a module. */
export class Module {
  #each;
  #take;
  /** By port, why its rows cannot be columns. */
  #closed = new Map();
  params = {};
  ports = ['out'];
  /** The fields that it has of each input as columns, and by port those that it sets. */
  selected = [];
  /** Of a call, where it keeps one. */
  state = null;

  constructor(each, { value, select, declare, params, ports, stateSchema, onTimer, migrate, ...unknown } = {}) {
    if (typeof each !== 'function') throw new TypeError('a module is made of a function');
    const wrong = Object.keys(unknown)[0];
    if (wrong !== undefined) throw new TypeError(`option ${wrong} is none of ${OPTIONS}`);
    if (value !== undefined && select !== undefined) {
      throw new TypeError('select says how the value is read: leave out value');
    }
    this.#each = refuseAsync(each);
    this.#take = wayOfValue(value);
    /** What is called when timers fire. */
    this.onTimer = onTimer;
    if (select !== undefined) this.selected = fieldsOf(select);
    this.fields = declare === undefined ? null : fieldsOf(declare);
    checkKept(stateSchema, onTimer, migrate);
    /** By older schema, what takes over from it. */
    this.migrations = new Map(Object.entries(migrate ?? {}).map((entry) => migrationOf(stateSchema, entry)));
    this.described = {
      params: params ?? null,
      ports: ports ?? null,
      state_schema: stateSchema ?? null,
      migrates: this.migrations.size > 0 ? [...this.migrations.keys()] : null,
    };
  }

  get function() {
    return this.#each;
  }

  get keepsState() {
    return this.described.state_schema !== null;
  }

  /** `context` has what the node declares, and takes what the module says of its columns. */
  open(context) {
    this.ports = [...context.outputs()];
    if (this.ports.length === 0) throw new Failure('outputs', 'the node declares no outputs');
    const params = context.params();
    try {
      this.params = JSON.parse(params === '' ? '{}' : params);
    } catch (error) {
      throw new Failure('params', `the node's params are not JSON: ${error.message}`);
    }
    if (this.selected.length > 0) {
      for (const input of context.inputs().keys()) context.select(input, this.selected);
    }
    this.#closed.clear();
    for (const [port, fields] of this.declared.entries()) {
      if (fields !== null) this.#declare(context, port, fields);
    }
  }

  #declare(context, port, fields) {
    try {
      context.declare(port, fields);
    } catch (failure) {
      // rows go to the first output unless they say otherwise
      if (port === 0 || !(failure instanceof Failure)) throw failure;
      this.#closed.set(port, failure);
    }
  }

  get declared() {
    return this.ports.map(() => this.fields);
  }

  /** What a function is given last. */
  get given() {
    return this.state === null ? [this.params] : [this.state, this.params];
  }

  /** A function of a row's number that calls the module's function with that row. */
  each(rows) {
    const [each, [first, second]] = [this.#each, this.given];
    const take = this.selected.length > 0 ? takeRows(this.selected, rows) : this.#take(rows.values());
    return this.#kept(rows, (row) => each(take(row), new Meta(rows, row), first, second));
  }

  /** What stands at the rows' keys is fetched at once, and what a row changes can be taken back. */
  #kept(rows, each) {
    const { state } = this;
    if (state === null) return each;
    state.fetch(rows.keys());
    return (row) => {
      state.beginRow();
      return each(row);
    };
  }

  /** The watermark has passed these. */
  timers(fired, out) {
    if (this.onTimer === undefined) return;
    const [keys, times, { onTimer }] = [fired.keys(), fired.eventTimes(), this];
    const each = (row) => onTimer(keys.get(row), Number(times[row]), this.state, this.params);
    this.make(fired, out, this.#kept(fired, each));
  }

  /** The loop of functions that make rows. */
  make(rows, out, each) {
    const way = wayOf(this.fields);
    const made = this.ports.map(() => new Made(way));
    this.overRows(rows, out, each, (returned, row) => {
      for (const value of this.outputsOf(returned)) {
        if (value instanceof Record) {
          made[value.port == null ? 0 : this.port(value.port)].putRecord(row, value);
        } else {
          made[0].put(row, value);
        }
      }
    });
    made.forEach((ofPort, port) => ofPort.flush(port, rows, out));
  }

  /** The values to go out, of what a function returns. */
  outputsOf(value) {
    return value == null ? [] : [value];
  }

  /** Calls for each row; what it throws refuses the row. */
  overRows(rows, out, each, use) {
    const refusals = new Refusals(out);
    for (let row = 0; row < rows.length; row++) {
      try {
        use(settled(each(row)), row);
      } catch (error) {
        this.state?.undoRow();
        if (refusals.add(row, error)) break;
      }
    }
    refusals.flush();
  }

  port(name) {
    const port = this.ports.indexOf(name);
    if (this.#closed.has(port)) throw new Reject('port', this.#closed.get(port).message);
    if (port >= 0) return port;
    throw new Reject('port', `no output "${name}"; the node declares: ${this.ports.join(', ')}`);
  }
}

/** What is said of state fits together. */
function checkKept(stateSchema, onTimer, migrate) {
  if (stateSchema === undefined) {
    if (onTimer === undefined && migrate === undefined) return;
    throw new TypeError('a module that keeps state says the version of how it does: stateSchema: 1');
  }
  if (!isSchema(stateSchema)) throw new TypeError(`stateSchema is a number of 32 bits, not ${String(stateSchema)}`);
  if (onTimer !== undefined && typeof onTimer !== 'function') {
    throw new TypeError('what is called for timers is a function');
  }
  refuseAsync(onTimer);
}

function isSchema(number) {
  return Number.isInteger(number) && number >= 0 && number < 2 ** 32;
}

/** An older schema, and what takes over from it. */
function migrationOf(stateSchema, [schema, said]) {
  const { each, value } = typeof said === 'function' ? { each: said } : said;
  const from = Number(schema);
  if (!isSchema(from) || from === stateSchema) throw new TypeError(`migrate is from older schemas, not from ${schema}`);
  if (typeof each !== 'function') throw new TypeError(`what takes over from schema ${schema} is no function`);
  return [from, { each: refuseAsync(each), take: wayOfValue(value) }];
}

/** The same way, and `null` where a record has no value. */
function orNull(way) {
  return (column) => {
    const value = way(column);
    return (row) => (column.has(row) ? value(row) : null);
  };
}

const WAYS = {
  'bytes?': orNull((column) => (row) => column.get(row)),
  'text?': orNull((column) => text(column, 'utf-8')),
  bytes: (column) => (row) => column.get(row) ?? noValue(),
  text: (column) => text(column, 'utf-8'),
  json: (column) => {
    const take = text(column, 'json');
    return (row) => {
      const value = take(row);
      try {
        return JSON.parse(value);
      } catch (error) {
        throw new Reject('json', error.message);
      }
    };
  },
};

function wayOfValue(value = 'json') {
  if (Object.hasOwn(WAYS, value)) return WAYS[value];
  throw new TypeError(`value is 'json', 'text' or 'bytes', the last two with a ? where there may be none; not ${JSON.stringify(value)}`);
}

function noValue() {
  throw new Reject('no-value', 'the record has no value');
}

/** Rows as text: decoded at once where that is possible, else row by row, which finds the one to blame. */
function text(column, code) {
  const letters = column.letters();
  if (letters !== null) return (row) => (column.has(row) ? letters(row) : noValue());
  return (row) => {
    const value = column.get(row) ?? noValue();
    try {
      return decoder.decode(value);
    } catch {
      throw new Reject(code, 'the value is not UTF-8');
    }
  };
}

/** The text or bytes of a value to go out; `null` for a tombstone. */
function payload(value) {
  if (value instanceof Uint8Array) return value;
  return value === TOMBSTONE ? null : written(value);
}

/** Code and message of what was thrown. */
function reasonOf(error) {
  if (error instanceof Reject) return error;
  return { code: 'error', message: said(error) };
}

/** Refused rows on their way. */
class Refusals {
  rows = [];
  code = '';
  message = '';

  constructor(out) {
    this.out = out;
  }

  /** Says whether the batch ends here, as it does at a row to be tried again. */
  add(row, error) {
    if (error instanceof Retry) {
      this.out.retry([row], error.afterMs, error.code, error.message);
      return true;
    }
    const { code, message } = reasonOf(error);
    if (code !== this.code || message !== this.message) {
      this.flush();
      [this.code, this.message] = [code, message];
    }
    this.rows.push(row);
    return false;
  }

  flush() {
    if (this.rows.length > 0) this.out.reject(this.rows, this.code, this.message);
    this.rows = [];
  }
}

/** How what is returned goes out: as bytes, JSON for most, or as typed columns of these fields. */
function wayOf(fields) {
  if (fields === null) {
    return {
      check: payload,
      emit(port, made, rows, out) {
        out.emit(port, made.parents, made.keysOf(rows), Column.ofTexts(made.values));
      },
    };
  }
  return {
    check: (value) => checkedRow(fields, value),
    emit(port, made, rows, out) {
      out.emitColumns(port, made.isWhole(rows) ? undefined : made.parents);
      setRows(fields, made.values, out);
      if (made.keys !== null) out.setKeys(made.keysOf(rows));
    },
  };
}

/** What was made for one port so far; what is not there is each row's parent's. */
class Made {
  parents = [];
  values = [];
  inOrder = true;
  keys = null;
  times = null;
  headers = null;

  constructor(way) {
    this.way = way;
  }

  put(row, value) {
    this.#push(row, this.way.check(value));
  }

  #push(row, value) {
    this.inOrder &&= row === this.parents.length;
    this.parents.push(row);
    this.values.push(value);
  }

  putRecord(row, record) {
    const [value, at] = [this.way.check(record.value), this.parents.length];
    const key = record.key === undefined ? undefined : asBytes(record.key);
    const headers = Object.entries(record.headers ?? {}).map(([name, v]) => [name, asBytes(v)]);
    const time = record.eventTime === undefined ? undefined : micros(record.eventTime);
    if (key !== undefined) (this.keys ??= new Map()).set(at, key);
    if (time !== undefined) {
      (this.times ??= new Map()).set(at, time);
    }
    for (const [name, header] of headers) {
      this.headers ??= new Map();
      if (!this.headers.has(name)) this.headers.set(name, new Map());
      this.headers.get(name).set(at, header);
    }
    this.#push(row, value);
  }

  /** Whether each row of the batch gave one, in order. */
  isWhole(rows) {
    return this.inOrder && this.parents.length === rows.length;
  }

  keysOf(rows) {
    const [keys, own] = [rows.keys(), this.keys];
    if (own === null) return this.isWhole(rows) ? keys : keys.gather(this.parents);
    return Column.of(this.parents.map((row, at) => (own.has(at) ? own.get(at) : keys.get(row))));
  }

  flush(port, rows, out) {
    if (this.parents.length === 0) return;
    this.way.emit(port, this, rows, out);
    if (this.times !== null) {
      const inherited = rows.eventTimes();
      out.setEventTimes(this.parents.map((row, at) => this.times.get(at) ?? inherited[row]));
    }
    for (const [name, values] of this.headers ?? []) {
      out.setHeader(name, Column.of(this.parents.map((_, at) => values.get(at) ?? null)));
    }
  }
}

class Making extends Module {
  process(rows, out) {
    this.make(rows, out, this.each(rows));
  }
}

class FlatMap extends Making {
  outputsOf(values) {
    return values ?? [];
  }
}

class Filter extends Module {
  process(rows, out) {
    const kept = [];
    this.overRows(rows, out, this.each(rows), (keep, row) => {
      if (keep) kept.push(row);
    });
    if (kept.length > 0) out.forward(0, kept);
  }
}

class Route extends Module {
  process(rows, out) {
    const sent = this.ports.map(() => []);
    this.overRows(rows, out, this.each(rows), (name, row) => sent[this.port(name)].push(row));
    sent.forEach((forwarded, port) => {
      if (forwarded.length > 0) out.forward(port, forwarded);
    });
  }
}

/** What is thrown as a refusal is of no row here, but of the batch. */
function wholly(work) {
  try {
    settled(work());
  } catch (error) {
    throw error instanceof Reject ? new Failure(error.code, error.message) : error;
  }
}

class Whole extends Module {
  #byOutput = null;

  constructor(work, { declare, onTimer, onTimers, ...options } = {}) {
    if (onTimer !== undefined) throw new TypeError('a batch is given all timers at once, with onTimers');
    const byOutput = Object.entries(declare ?? {}).filter(([, described]) => typeof described === 'object');
    super(work, { ...options, onTimer: onTimers, declare: byOutput.length > 0 ? undefined : declare });
    if (byOutput.length > 0) {
      this.#byOutput = new Map(byOutput.map(([name, described]) => [name, fieldsOf(described)]));
    }
  }

  get declared() {
    return this.#byOutput === null ? super.declared : this.ports.map((name) => this.#byOutput.get(name) ?? null);
  }

  process(rows, out) {
    wholly(() => this.function(rows, out, ...this.given));
  }

  timers(fired, out) {
    wholly(() => this.onTimer?.(fired, out, ...this.given));
  }
}

/**
 * One call, with the handles of its batch and its outbox: what the module told, and what it changed of what it
 * keeps, counts only if it ends well.
 */
export function run(module, host, rows, out, kept, timers = false) {
  telemetry.begin();
  module.state = module.keepsState ? new State(kept) : null;
  const batch = new Batch(host, rows, timers ? [] : module.selected);
  const outbox = new Outbox(host, out, module.declared);
  if (timers) module.timers(batch, outbox);
  else module.process(batch, outbox);
  module.state?.tell();
  module.state = null;
  telemetry.tell();
}

/** The module takes over a part of what was kept with an older schema. */
export function migrate(module, kept, schema, [keys, values]) {
  if (!module.migrations.has(schema)) throw new Failure('migrate', `nothing is taken over from schema ${schema}`);
  telemetry.begin();
  const [state, { each, take }] = [new State(kept), module.migrations.get(schema)];
  const value = take(values);
  for (let row = 0; row < keys.length; row++) {
    const key = keys.get(row);
    try {
      settled(each(key, value(row), state));
    } catch (error) {
      const { code, message } = reasonOf(error);
      throw new Failure(code, `key "${shown.decode(key)}": ${message}`);
    }
  }
  state.tell();
  telemetry.tell();
}
