/**
 * Runs a module natively, on rows written by hand: `node --test` needs no broker, no WebAssembly.
 *
 *     const out = run(tidy, [{ carrier: 'UA', delay: 90 }, 'not json']);
 *     assert.deepEqual(out.json('out'), [{ carrier: 'UA', hours: 1.5 }]);
 *     assert.equal(out.rejects[0].code, 'json');
 *
 * The same code and the same loops as in the sandbox; the same rules too: a refused row has no output. Rows
 * read as columns are decoded from JSON as the host decodes them, columns are written as JSON. `Lane` runs a module
 * that keeps state, batch after batch. Each run of the folder's own module, and each lane, is also a case of
 * `rustmq module test`, which puts the same rows through the component.
 */

import { batchShown, isWanted, keep, record } from './cases.js';
import { Column } from './batch.js';
import { answer, count } from './http_host.js';
import { read } from './json.js';
import { register as registerLookups } from './lookup.js';
import { migrate, run as runBatch } from './module.js';
import { Context, Host, Row, Sink, Store, Tables, entriesOf } from './native.js';
import { register } from './telemetry.js';

export { Row };

/**
 * Opens the module and gives it the rows as one batch. Throws what the module throws as a whole.
 *
 * `lookups` are the tables that the node declares: `{ users: { ann: { city: 'Ghent' } } }`, or a `Map` for
 * keys that are bytes. Values that are neither text nor bytes are written as JSON. A module that keeps state begins
 * with none; `Lane` gives it more than one batch.
 */
export function run(module, rows, options = {}) {
  if (module.keepsState) return new Lane(module, options).run(rows);
  const [given, context] = [rowsOf(rows), contextOf(options)];
  const [sink, tables] = opened(module, context, options.lookups);
  const asked = count();
  const outcome = sink.give(called(module, given, context));
  // nobody answers requests of a case
  if (isWanted(module) && count() === asked) {
    const batch = batchShown(given, outcome, tables);
    record(context, batch, isTimed(given) ? nanosecondsPerRow(module, context, given) : null);
  }
  return outcome;
}

/** Entries that a module is given in one call, at most. */
const MIGRATION_ENTRIES = 1000;

/**
 * One lane of a module that keeps state: batch after batch, with all that it keeps.
 *
 *     const lane = new Lane(count);
 *     lane.run([new Row('tea', { key: 'ann' })]);
 *     assert.equal(lane.get('ann'), 1);
 *
 * As in the platform, timers fire after the batch that moved the watermark past them, each once, in the order of
 * time and key; those set meanwhile wait for the next batch. `latenessUs` is the node's `lateness`; the other options
 * are as in `run`, and `lane.lookups` may be changed between batches.
 */
export class Lane {
  store = new Store();
  watermark = -(2n ** 63n);
  /** Of a case: what it was given and what came of it. */
  batches = [];
  migrated = null;
  isCase = true;
  nativeNs = null;

  constructor(module, { latenessUs = 0, lookups, ...options } = {}) {
    if (!module.keepsState) throw new TypeError('the module keeps no state: try it with `run`');
    Object.assign(this, { module, latenessUs, lookups, context: contextOf(options) });
    opened(module, this.context, lookups);
  }

  /**
   * The module takes over what an older version kept, as it does before its first batch: an object or a `Map`, whose
   * values that are neither text nor bytes are written as JSON. Timers and watermark stay. Throws a `Failure` where it
   * cannot: the platform then goes on with the old version, and the lane with what it had.
   */
  migrate(schema, entries) {
    const { module } = this;
    if (!module.migrations.has(schema)) {
      const known = [...module.migrations.keys()].join(', ') || 'none';
      throw new RangeError(`the module takes over from schemas ${known}, not from ${schema}`);
    }
    opened(module, this.context, this.lookups);
    const old = new Store({ entries: entriesOf(entries) }).entries();
    const store = new Store({ timers: this.store.timersSet() });
    for (let at = 0; at < old.length; at += MIGRATION_ENTRIES) {
      const part = old.slice(at, at + MIGRATION_ENTRIES);
      migrate(module, store, schema, [0, 1].map((side) => Column.of(part.map((entry) => entry[side]))));
    }
    // a case migrates once, at its beginning
    this.isCase &&= this.batches.length === 0 && this.migrated === null;
    this.migrated = { schema, kept: old };
    this.store = store;
    return this;
  }

  /**
   * Gives the module a batch, and then the timers that it made due: what they emit has the batch's last row as its
   * parent. Throws what the module throws as a whole, and keeps nothing of that batch.
   */
  run(rows) {
    const [given, { module, context }] = [rowsOf(rows), this];
    const [sink, tables] = opened(module, context, this.lookups);
    const [asked, store] = [count(), this.store.copy()];
    const [before, begun] = [this.store, this.watermark];
    const outcome = called(module, given, context, store, begun);
    const moved = given.map((row) => row.eventTime - BigInt(this.latenessUs));
    const watermark = moved.reduce((most, time) => (time > most ? time : most), begun);
    const due = given.length > 0 ? store.due(watermark) : [];
    const fired = due.map(([time, key]) => new Row(null, { key, eventTime: time }));
    if (fired.length > 0) {
      outcome.add(called(module, fired, context, store, watermark, true), given.length - 1);
    }
    Object.assign(this, { store, watermark });
    this.isCase &&= count() === asked; // nobody answers requests of a case
    sink.give(outcome);
    if (isWanted(module)) {
      if (this.batches.length === 0) {
        keep(this);
        if (isTimed(given)) this.nativeNs = nanosecondsPerRow(module, context, given, before, begun);
      }
      this.batches.push(batchShown(given, outcome, tables));
    }
    return outcome;
  }

  /** What is kept at a key, read from JSON; `null` where nothing is. */
  get(key) {
    const bytes = this.getBytes(key);
    return bytes === null ? null : read(bytes, 'state', 'what is kept');
  }

  getBytes(key) {
    return this.store.get(Column.ofTexts([key])).get(0);
  }

  /** As text, in the order of their bytes. */
  get keys() {
    return this.store.entries().map(([key]) => decoder.decode(key));
  }

  /** Time and key, as text, of those that are set, in order. */
  get timers() {
    return this.store.timersSet().map(([time, key]) => [Number(time), decoder.decode(key)]);
  }
}

const decoder = new TextDecoder();

function rowsOf(rows) {
  return rows.map((row) => (row instanceof Row ? row : new Row(row)));
}

function contextOf({ params, outputs = ['out'] }) {
  return new Context(params === undefined ? '' : JSON.stringify(params), outputs);
}

/** Opens the module; what it tells from now on goes to the sink, what it looks up is in the tables. */
function opened(module, context, lookups = {}) {
  const [sink, tables] = [new Sink(), new Tables(lookups)];
  register(sink);
  registerLookups(tables, (name) => tables.table(name));
  module.open(context);
  return [sink, tables];
}

function called(module, rows, context, store, watermark, timers) {
  const host = new Host(rows, context, watermark);
  runBatch(module, host, host, host, store, timers);
  return host.settle(context.names);
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

function isTimed(rows) {
  return Boolean(process.env.RUSTMQ_BENCH) && rows.length > 0;
}

/** What the batch costs, for `rustmq module bench`; with the same state each time. */
function nanosecondsPerRow(module, context, rows, store, watermark) {
  register(new Sink()); // what it tells here is not the test's
  let [took, calls] = [0, 0];
  while (took < TIMED_MS) {
    const [host, kept] = [new Host(rows, context, watermark), store?.copy()];
    const began = performance.now();
    runBatch(module, host, host, host, kept);
    took += performance.now() - began;
    calls += 1;
  }
  return (took * 1e6) / calls / rows.length;
}
