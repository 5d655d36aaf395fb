/**
 * Runs of the harness as cases for `rustmq module test`, which says where it wants them.
 *
 * A case is a line of JSON: what the node declares, what went in and what came out; a lane with all its batches is
 * one case, written when the tests are over.
 */

import { appendFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** The folder's own module, where `rustmq module test` names it: only its runs are cases. */
const main = process.env.RUSTMQ_MODULE;
const own = main ? (await import(pathToFileURL(main).href)).default : null;

const lanes = [];

/** Whether somebody asks, and it is the folder's own module. */
export function isWanted(module) {
  return Boolean(process.env.RUSTMQ_CASES) && (own === null || module === own);
}

/** Writes down a case of one batch. */
export function record(context, batch, nativeNs) {
  write({ ...nodeShown(context), ...batch, native_ns: nativeNs });
}

/** A lane is written down as it is when the tests are over. */
export function keep(lane) {
  if (lanes.length === 0) process.once('exit', writeLanes);
  lanes.push(lane);
}

export function writeLanes() {
  for (const { context, isCase, latenessUs, batches, migrated, store, nativeNs } of lanes.splice(0)) {
    if (!isCase) continue;
    const [kept, timers] = [pairsShown(store.entries()), store.timersSet()];
    const lane = {
      lateness_us: latenessUs,
      batches,
      migrated: migrated && { schema: migrated.schema, kept: pairsShown(migrated.kept) },
      kept,
      timers: timers.map(([time, key]) => [Number(time), bytesShown(key)]),
    };
    write({ ...nodeShown(context), lane, native_ns: nativeNs });
  }
}

/** What went in, and what came of it. */
export function batchShown(rows, { rows: out, rejects, retries }, tables) {
  const shown = ({ key, value, eventTime, headers, ...rest }) => ({
    ...rest,
    key: bytesShown(key),
    value: bytesShown(value),
    event_time: Number(eventTime),
    headers: [...headers].map(([name, header]) => [name, bytesShown(header)]),
  });
  const lookups = Object.fromEntries(tables.all.map(([name, entries]) => [name, pairsShown(entries)]));
  return { lookups, rows: rows.map(shown), out: out.map(shown), rejects, retries };
}

/** What the node declares, and what the module said of its columns. */
function nodeShown({ text, names, selected, declared }) {
  return {
    params: text,
    outputs: names,
    selected: selected && fieldsShown(selected),
    declared: Object.fromEntries([...declared].map(([port, fields]) => [port, fieldsShown(fields)])),
  };
}

function write(line) {
  appendFileSync(process.env.RUSTMQ_CASES, `${JSON.stringify(line)}\n`);
}

function fieldsShown(fields) {
  return fields.map(({ name, kind }) => ({ name, type: kind }));
}

function pairsShown(pairs) {
  return pairs.map((pair) => pair.map(bytesShown));
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
