/**
 * Runs a module natively, on rows written by hand: `node --test` needs no broker, no WebAssembly.
 *
 *     const out = run(tidy, [{ carrier: 'UA', delay: 90 }, 'not json']);
 *     assert.deepEqual(out.json('out'), [{ carrier: 'UA', hours: 1.5 }]);
 *     assert.equal(out.rejects[0].code, 'json');
 *
 * The same code and the same loops as in the sandbox; the same rules too: a refused row has no output. Rows
 * read as columns are decoded from JSON as the host decodes them, columns are written as JSON. Each run of
 * the folder's own module is also a case of `rustmq module test`, which puts the same rows through the component.
 */

import { appendFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import { Column } from './batch.js';
import { register as registerLookups } from './lookup.js';
import { answer, count } from './http_host.js';
import { run as runBatch } from './module.js';
import { asBytes } from './record.js';
import { register } from './telemetry.js';
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
class Outcome {
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
}

const decoder = new TextDecoder();

/**
 * Opens the module and gives it the rows as one batch. Throws what the module throws as a whole.
 *
 * `lookups` are the tables that the node declares: `{ users: { ann: { city: 'Ghent' } } }`, or a `Map` for
 * keys that are bytes. Values that are neither text nor bytes are written as JSON.
 */
export function run(module, rows, { params, outputs = ['out'], lookups = {} } = {}) {
  const given = rows.map((row) => (row instanceof Row ? row : new Row(row)));
  const context = new Context(params === undefined ? '' : JSON.stringify(params), outputs);
  const sink = new Sink();
  register(sink);
  const tables = new Tables(lookups);
  registerLookups(tables, (name) => tables.table(name));
  const asked = count();
  module.open(context);
  const host = new Host(given, context);
  runBatch(module, host, host, host);
  const outcome = host.settle(outputs);
  Object.assign(outcome, { log: sink.lines, counters: sink.counters, histograms: sink.histograms });
  // nobody answers requests of a case
  if (count() === asked) record(module, context, given, outcome, tables);
  return outcome;
}

/**
 * Who answers the requests that modules make from now on: a function of `{ method, url, headers, body }`
 * that returns a `Response` of `#rustmq/http`, or throws what its `trouble` makes.
 */
export function http(answers) {
  const pair = ([name, value]) => ({ name, value });
  answer((request) => {
    const headers = Object.fromEntries(request.headers.map(({ name, value }) => [name, value]));
    try {
      const { status, headers: given, body, url } = answers({ ...request, headers });
      return { tag: 'ok', val: { status, headers: [...given].map(pair), body, url: url || request.url } };
    } catch (error) {
      if (error.trouble === undefined) throw error;
      return { tag: 'err', val: { code: error.trouble, message: error.message } };
    }
  });
}

/** How long a case is timed where `RUSTMQ_BENCH` asks for it. */
const TIMED_MS = 300;

/** What the batch costs, for `rustmq module bench`. */
function nanosecondsPerRow(module, context, rows) {
  register(new Sink()); // what it tells here is not the test's
  let [took, calls] = [0, 0];
  while (took < TIMED_MS) {
    const host = new Host(rows, context);
    const began = performance.now();
    runBatch(module, host, host, host);
    took += performance.now() - began;
    calls += 1;
  }
  return (took * 1e6) / calls / rows.length;
}

class Sink {
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
}

/** Stands for the host's lookup tables. */
class Tables {
  #names;
  #entries;

  constructor(tables) {
    this.#names = Object.keys(tables);
    const pairs = (table) => (table instanceof Map ? [...table] : Object.entries(table));
    const entry = ([key, value]) => [asBytes(key), new Row(value).value];
    this.#entries = Object.values(tables).map((table) => pairs(table).map(entry));
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

  /** For a case. */
  shown() {
    const pairs = (entries) => entries.map((pair) => pair.map(bytesShown));
    return Object.fromEntries(this.#names.map((name, i) => [name, pairs(this.#entries[i])]));
  }
}

/** What a node would declare, and what the module says of its columns. */
class Context {
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

/**
 * Stands for the host's `packed`, and for the handles of batch and outbox: of the rows that fit what the
 * module selects.
 */
class Host {
  #rows;
  #cells;
  /** Numbers of the rows among those that were given. */
  #numbers = [];
  #unfit = [];
  #context;
  #calls = [];

  constructor(rows, context) {
    this.#context = context;
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
    this.#calls.push({ kind: 'forward', port, parents: this.#rowNumbers(rows) });
  }

  emit(_, port, parents, keys, values) {
    const call = { kind: 'emit', port, parents: this.#rowNumbers(parents), headers: [] };
    this.#calls.push({ ...call, keys: Column.unpack(keys), values: Column.unpack(values) });
  }

  emitColumns(_, port, given) {
    const declared = this.#context.declared.get(port);
    if (declared === undefined) throw new Error(`no fields were declared for port ${port} in \`open\``);
    const parents = given === undefined ? [...this.#rows.keys()] : this.#rowNumbers(given);
    this.#calls.push({ kind: 'emit', port, parents, headers: [], columns: declared.map(() => null) });
  }

  setKeys(_, keys) {
    this.#calls.at(-1).keys = Column.unpack(keys);
  }

  setBools(_, column, values) {
    const rows = this.#calls.at(-1).parents.length;
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
    const { port, parents, columns } = this.#calls.at(-1);
    const field = this.#context.declared.get(port)[column];
    if (field === undefined) throw new Error(`column ${column} was not declared`);
    if (!kinds.includes(field.kind)) throw new Error(`field \`${field.name}\` was declared as ${field.kind}`);
    if (columns[column] !== null) throw new Error(`field \`${field.name}\` was set already`);
    const [has, wants] = [values.length, parents.length];
    if (has !== wants) throw new Error(`field \`${field.name}\`: ${has} values for ${wants} rows`);
    columns[column] = values;
  }

  setEventTimes(_, times) {
    this.#calls.at(-1).times = new BigInt64Array(times.slice().buffer);
  }

  setHeader(_, name, values) {
    this.#calls.at(-1).headers.push([name, Column.unpack(values)]);
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

/** The folder's own module, where `rustmq module test` names it: only its runs are cases. */
const main = process.env.RUSTMQ_MODULE;
const own = main ? (await import(pathToFileURL(main).href)).default : null;

/** A case for `rustmq module test`, which says where it wants them. */
function record(module, context, rows, outcome, tables) {
  const path = process.env.RUSTMQ_CASES;
  if (!path || (own !== null && module !== own)) return;
  const shown = ({ key, value, eventTime, headers, ...rest }) => ({
    ...rest,
    key: bytesShown(key),
    value: bytesShown(value),
    event_time: Number(eventTime),
    headers: [...headers].map(([name, header]) => [name, bytesShown(header)]),
  });
  const given = {
    params: context.text,
    outputs: context.names,
    selected: context.selected && fieldsShown(context.selected),
    declared: Object.fromEntries([...context.declared].map(([port, fields]) => [port, fieldsShown(fields)])),
    lookups: tables.shown(),
    rows: rows.map(shown),
  };
  const { rejects, retries } = outcome;
  const line = { ...given, out: outcome.rows.map(shown), rejects, retries };
  if (process.env.RUSTMQ_BENCH && rows.length > 0) line.native_ns = nanosecondsPerRow(module, context, rows);
  appendFileSync(path, `${JSON.stringify(line)}\n`);
}

function fieldsShown(fields) {
  return fields.map(({ name, kind }) => ({ name, type: kind }));
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function bytesShown(bytes) {
  if (bytes === null) return null;
  try {
    return strict.decode(bytes);
  } catch {
    return { hex: Buffer.from(bytes).toString('hex') };
  }
}
