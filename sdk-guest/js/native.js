/**
 * What stands for the host where a module runs natively, and the rows that go in and come out.
 *
 * `testing` puts a `Host` in the place of `packed` and of the handles of batch and outbox, a `Store` in that of
 * `packed-state`, `Tables` in that of `lookup`, a `Sink` in that of `telemetry`.
 */

import { Column } from './batch.js';
import { Failure } from './module.js';
import { asBytes } from './record.js';
import { bytesOf, nameOf } from './state.js';
import { decode, encode } from './typed_json.js';
import { Bools, Floats, Ints } from './typed.js';

/** An input row. A value or key that is text is its bytes; any other value but bytes is written as JSON. */
export class Row {
  constructor(value, { key = null, eventTime = 0, headers = {} } = {}) {
    const raw = value === null || typeof value === 'string' || value instanceof Uint8Array;
    this.value = asBytes(raw ? value : JSON.stringify(value));
    this.key = asBytes(key);
    this.eventTime = BigInt(eventTime);
    this.headers = new Map(Object.entries(headers).map(([name, v]) => [name, asBytes(v)]));
  }
}

/** All that came of a batch: `rows`, `rejects`, `retries`, `log`, `counters`, `histograms`. */
export class Outcome {
  rows = [];
  rejects = [];
  retries = [];

  on(port = 'out') {
    return this.rows.filter((row) => row.port === port);
  }

  texts(port = 'out') {
    return this.on(port).map((row) => decoder.decode(row.value ?? new Uint8Array(0)));
  }

  json(port = 'out') {
    return this.texts(port).map((text) => JSON.parse(text));
  }

  /** What came of a second call, all of it from one row; what was told is told to one sink. */
  add(more, parent) {
    this.rows.push(...more.rows.map((row) => ({ ...row, parent })));
    this.rejects.push(...more.rejects.map((refused) => ({ ...refused, row: parent })));
    this.retries.push(...more.retries.map((refused) => ({ ...refused, row: parent })));
  }
}

const decoder = new TextDecoder();
const METRIC = /^[a-z][a-z0-9_]{0,63}$/;

/** Stands for the host's `telemetry`. */
export class Sink {
  lines = [];
  counters = {};
  histograms = {};
  #names = [];

  enabled() {
    return true;
  }

  log(level, message, values) {
    let line = message;
    for (let i = 0; i < values.length; i += 2) line += ` ${values[i]}=${values[i + 1]}`;
    this.lines.push([level, line]);
  }

  counter(name) {
    if (!METRIC.test(name)) {
      throw new Failure('metric', `a metric's name is \`[a-z][a-z0-9_]*\` of at most 64 bytes, not "${name}"`);
    }
    return this.#names.push(name) - 1;
  }

  histogram(name) {
    return this.counter(name);
  }

  add(ids, amounts) {
    ids.forEach((id, i) => {
      const name = this.#names[id];
      this.counters[name] = (this.counters[name] ?? 0) + Number(amounts[i]);
    });
  }

  observe(id, values) {
    (this.histograms[this.#names[id]] ??= []).push(...values);
  }

  /** What was told so far. */
  give(outcome) {
    return Object.assign(outcome, { log: this.lines, counters: this.counters, histograms: this.histograms });
  }
}

/** Pairs of bytes, of an object or a `Map`: a value that is neither text nor bytes is written as JSON. */
export function entriesOf(given) {
  const pairs = given instanceof Map ? [...given] : Object.entries(given);
  return pairs.map(([key, value]) => [asBytes(key), new Row(value).value]);
}

/** Stands for the host's lookup tables. */
export class Tables {
  #names;
  #entries;

  constructor(tables) {
    this.#names = Object.keys(tables);
    this.#entries = Object.values(tables).map(entriesOf);
  }

  table(name) {
    // tests may load several modules: only one that asks for a table needs it
    const number = this.#names.indexOf(name);
    return number >= 0 ? number : null;
  }

  lookup(number, keys) {
    const wanted = Column.unpack(keys);
    const same = (a, b) => Buffer.compare(a, b) === 0;
    const find = (key) => this.#entries[number].findLast(([known]) => same(known, key))?.[1] ?? null;
    const found = Array.from({ length: wanted.length }, (_, i) => wanted.get(i));
    return Column.of(found.map((key) => (key === null ? null : find(key)))).pack();
  }

  /** For a case: pairs of key and value by table. */
  get all() {
    return this.#names.map((name, i) => [name, this.#entries[i]]);
  }
}

/** What a node would declare, and what the module says of its columns. */
export class Context {
  selected = null;
  declared = new Map();

  constructor(params, outputs) {
    this.text = params;
    this.names = outputs;
  }

  params() {
    return this.text;
  }

  inputs() {
    return ['in'];
  }

  outputs() {
    return this.names;
  }

  select(_, fields) {
    this.selected = fields;
  }

  declare(port, fields) {
    this.declared.set(port, fields);
  }
}

/** Stands for the host's `packed-state`: what a lane keeps. */
export class Store {
  #entries;
  #timers;

  constructor({ entries = [], timers = [] } = {}) {
    this.#entries = new Map(entries.map(([key, value]) => [nameOf(key), value]));
    this.#timers = new Map(timers.map(([time, key]) => [timerName(time, key), { time, name: nameOf(key) }]));
  }

  get(keys) {
    return Column.of(namesOf(keys).map((name) => this.#entries.get(name) ?? null));
  }

  put(keys, values) {
    namesOf(keys).forEach((name, i) => {
      const value = values.get(i);
      if (value === null) this.#entries.delete(name);
      else this.#entries.set(name, value);
    });
  }

  scan(prefix, after, limit) {
    const [begin, behind] = [nameOf(prefix), after === undefined ? null : nameOf(after)];
    const wanted = (name) => name.startsWith(begin) && (behind === null || name > behind);
    const names = [...this.#entries.keys()].filter(wanted).sort().slice(0, limit);
    return [Column.of(names.map(bytesOf)), Column.of(names.map((name) => this.#entries.get(name)))];
  }

  timers(keys, times, on) {
    namesOf(keys).forEach((name, i) => {
      const timer = timerName(times[i], keys.get(i));
      if (on) this.#timers.set(timer, { time: times[i], name });
      else this.#timers.delete(timer);
    });
  }

  /** Those that the watermark has passed, in order, as time and key; they are set no more. */
  due(watermark) {
    const due = this.timersSet().filter(([time]) => time <= watermark);
    due.forEach(([time, key]) => this.#timers.delete(timerName(time, key)));
    return due;
  }

  /** Pairs of key and value, in the order of keys. */
  entries() {
    return [...this.#entries.keys()].sort().map((name) => [bytesOf(name), this.#entries.get(name)]);
  }

  /** Time and key, in order. */
  timersSet() {
    const before = (a, b) => (a === b ? 0 : a < b ? -1 : 1);
    const timers = [...this.#timers.values()];
    timers.sort((a, b) => before(a.time, b.time) || before(a.name, b.name));
    return timers.map(({ time, name }) => [time, bytesOf(name)]);
  }

  copy() {
    return new Store({ entries: this.entries(), timers: this.timersSet() });
  }
}

function namesOf(keys) {
  return Array.from({ length: keys.length }, (_, i) => nameOf(keys.get(i)));
}

function timerName(time, key) {
  return `${time} ${nameOf(key)}`;
}

/**
 * Stands for the host's `packed`, and for the handles of batch and outbox: of the rows that fit what the
 * module selects.
 */
export class Host {
  #ports;
  #rows;
  #cells;
  /** Numbers of the rows among those that were given. */
  #numbers = [];
  #unfit = [];
  #context;
  #watermark;
  #calls = [];

  constructor(rows, context, watermark) {
    this.#context = context;
    this.#ports = context.names.length;
    this.#watermark = watermark;
    const cells = [];
    rows.forEach((row, number) => {
      try {
        cells.push(decode(row.value, context.selected ?? []));
        this.#numbers.push(number);
      } catch (error) {
        this.#unfit.push({ row: number, code: 'schema', message: error.message });
      }
    });
    this.#rows = this.#numbers.map((number) => rows[number]);
    this.#cells = (context.selected ?? []).map((_, at) => cells.map((row) => row[at]));
  }

  len() {
    return this.#rows.length;
  }

  input() {
    return 0;
  }

  watermark() {
    const times = this.#rows.map((row) => row.eventTime);
    return this.#watermark ?? times.reduce((least, time) => (time < least ? time : least), times[0] ?? 0n);
  }

  keys() {
    return Column.of(this.#rows.map((row) => row.key)).pack();
  }

  values() {
    return Column.of(this.#rows.map((row) => row.value)).pack();
  }

  header(_, name) {
    return Column.of(this.#rows.map((row) => row.headers.get(name) ?? null)).pack();
  }

  eventTimes() {
    return new Uint8Array(BigInt64Array.from(this.#rows, (row) => row.eventTime).buffer);
  }

  offsets() {
    return new Uint8Array(BigUint64Array.from(this.#rows, (_, i) => BigInt(i)).buffer);
  }

  getBools(_, column) {
    return Bools.of(this.#selected(column, 'bool')).pack();
  }

  getInts(_, column) {
    return Ints.of(this.#selected(column, 'int64', 'timestamp')).pack();
  }

  getFloats(_, column) {
    return Floats.of(this.#selected(column, 'float64')).pack();
  }

  getBytes(_, column) {
    return Column.ofTexts(this.#selected(column, 'string', 'bytes')).pack();
  }

  #selected(column, ...kinds) {
    const field = this.#context.selected?.[column];
    if (field === undefined) throw new Error(`column ${column} was not selected`);
    if (!kinds.includes(field.kind)) throw new Error(`field \`${field.name}\` was selected as ${field.kind}`);
    return this.#cells[column];
  }

  forward(_, port, rows) {
    this.#port('forward', port);
    this.#calls.push({ kind: 'forward', port, parents: this.#rowNumbers(rows) });
  }

  emit(_, port, parents, keys, values) {
    this.#port('emit', port);
    const call = { kind: 'emit', port, parents: this.#rowNumbers(parents), headers: [] };
    this.#calls.push(call);
    call.keys = this.#fitting('emit: keys', Column.unpack(keys));
    call.values = this.#fitting('emit: values', Column.unpack(values));
  }

  emitColumns(_, port, given) {
    this.#port('emit', port);
    const declared = this.#context.declared.get(port);
    if (declared === undefined) throw new Error(`no fields were declared for port ${port} in \`open\``);
    const parents = given === undefined ? [...this.#rows.keys()] : this.#rowNumbers(given);
    this.#calls.push({ kind: 'emit', port, parents, headers: [], columns: declared.map(() => null) });
  }

  setKeys(_, keys) {
    this.#last('set-keys').keys = this.#fitting('set-keys', Column.unpack(keys));
  }

  setBools(_, column, values) {
    const rows = this.#last('set-bools').parents.length;
    if (values.values.length !== (rows + 7) >> 3) throw new Error(`bools for ${rows} rows`);
    this.#set(column, Bools.unpack(values, rows), 'bool');
  }

  setInts(_, column, values) {
    this.#set(column, Ints.unpack(values), 'int64', 'timestamp');
  }

  setFloats(_, column, values) {
    this.#set(column, Floats.unpack(values), 'float64');
  }

  setBytes(_, column, values) {
    this.#set(column, Column.unpack(values), 'string', 'bytes');
  }

  #set(column, values, ...kinds) {
    const { port, columns } = this.#last('set-column');
    if (columns === undefined) throw new Error('set-column: there is no emit of columns before it');
    const field = this.#context.declared.get(port)[column];
    if (field === undefined) throw new Error(`column ${column} was not declared`);
    if (!kinds.includes(field.kind)) throw new Error(`field \`${field.name}\` was declared as ${field.kind}`);
    if (columns[column] !== null) throw new Error(`field \`${field.name}\` was set already`);
    columns[column] = this.#fitting(`field \`${field.name}\``, values);
  }

  #port(call, port) {
    if (Number.isInteger(port) && port >= 0 && port < this.#ports) return;
    throw new Error(`${call}: port ${port}, but ${this.#ports} outputs`);
  }

  /** The emit that this call adds to. */
  #last(call) {
    const last = this.#calls.at(-1);
    if (last?.kind === 'emit') return last;
    throw new Error(`${call}: there is no emit before it`);
  }

  #fitting(call, values) {
    const [has, wants] = [values.length, this.#last(call).parents.length];
    if (has !== wants) throw new Error(`${call}: ${has} values for ${wants} rows`);
    return values;
  }

  setEventTimes(_, times) {
    this.#last('set-event-times').times = this.#fitting('set-event-times', new BigInt64Array(times.slice().buffer));
  }

  setHeader(_, name, values) {
    this.#last('set-header').headers.push([name, this.#fitting('set-header', Column.unpack(values))]);
  }

  reject(_, rows, code, message) {
    this.#calls.push({ kind: 'rejects', rows: this.#rowNumbers(rows), code, message });
  }

  retry(_, rows, afterMs, code, message) {
    this.#calls.push({ kind: 'retries', rows: this.#rowNumbers(rows), code, message });
  }

  #rowNumbers(bytes) {
    const rows = [...new Uint32Array(bytes.slice().buffer)];
    const wrong = rows.find((row) => row >= this.#rows.length);
    if (wrong !== undefined) throw new Error(`row ${wrong}, but the batch has ${this.#rows.length} rows`);
    return rows;
  }

  /** Puts the calls together as the host does. */
  settle(ports) {
    const outcome = new Outcome();
    for (const { kind, rows, code, message } of this.#calls.filter((call) => call.rows)) {
      outcome[kind].push(...rows.map((row) => ({ row, code, message })));
    }
    const refused = new Set(outcome.rejects.map((r) => r.row));
    const first = Math.min(this.#rows.length, ...outcome.retries.map((r) => r.row));
    for (const call of this.#calls.filter((call) => call.parents)) {
      outcome.rows.push(...this.#sent(ports, call));
    }
    outcome.rows = outcome.rows.filter(({ parent }) => parent < first && !refused.has(parent));
    // from numbers of the batch to those of the rows that were given
    for (const row of outcome.rows) row.parent = this.#numbers[row.parent];
    for (const refusal of [...outcome.rejects, ...outcome.retries]) refusal.row = this.#numbers[refusal.row];
    outcome.rejects.push(...this.#unfit);
    outcome.rejects.sort((a, b) => a.row - b.row);
    return outcome;
  }

  #sent(ports, call) {
    const { kind, port, parents, keys, times, headers } = call;
    return parents.map((parent, i) => {
      const row = this.#rows[parent];
      const out = { port: ports[port], parent, ...row };
      if (kind === 'forward') return out;
      const own = headers.map(([name, cells]) => [name, cells.get(i)]).filter(([, cell]) => cell !== null);
      return {
        ...out,
        key: keys ? keys.get(i) : row.key,
        value: this.#value(call, i),
        eventTime: times ? times[i] : row.eventTime,
        headers: new Map([...row.headers, ...own]),
      };
    });
  }

  #value({ port, columns, values }, i) {
    if (columns === undefined) return values.get(i);
    return encode(this.#context.declared.get(port), columns.map((column) => column?.get(i) ?? null));
  }
}
