/**
 * Write RustMQ modules as plain JavaScript functions.
 *
 *     import { map, Reject } from '#rustmq';
 *
 *     export default map((row) => {
 *       if (row.delay == null) throw new Reject('delay', 'no delay');
 *       return { carrier: row.carrier, hours: row.delay / 60 };
 *     });
 *
 * - `map` one row to one (`null` drops it), `flatMap` to many (a generator, say), `filter`, `route`
 * - the function gets the record's value read from JSON, or with `{ value: 'text' }` or
 *   `{ value: 'bytes' }` as it is; then `meta` for key, time and headers, and the node's `params`
 * - with `{ stateSchema: 1 }` it gets a `state` before `params`, which keeps values by key from batch to batch;
 *   `onTimer` is for the timers that it sets, `migrate` for what it kept with an older schema
 * - with `{ select: { carrier: 'string', delay: 'float64?' } }` it gets typed columns that the host decoded,
 *   as objects; with `declare` what it returns goes out as typed columns
 * - what is returned goes out as JSON; a `Uint8Array` and `TOMBSTONE` as they are; `Record` sets more
 *   than the value
 * - `Reject` refuses a row, `Retry` asks for it again later; anything else that is thrown refuses the
 *   row with code `error`
 * - `log`, `Counter` and `Histogram` tell the server's log and the pipeline's status
 * - `Lookup` is a table that the node declares: the newest value of every key of a topic
 * - `#rustmq/http` makes requests to other services, where the node grants it
 * - `batch` is the level below: whole batches, columns as typed arrays
 * - `#rustmq/testing` runs a module natively, with neither broker nor WebAssembly
 *
 * In the sandbox there are no files, clocks, timers or sockets, and functions are not `async`.
 */

export { Batch, Column, Meta, Outbox } from './batch.js';
export { Lookup } from './lookup.js';
export { Failure, batch, filter, flatMap, map, route } from './module.js';
export { Record, Reject, Retry, TOMBSTONE } from './record.js';
export { State } from './state.js';
export { Counter, Histogram, log } from './telemetry.js';
export { Bools, Floats, Ints } from './typed.js';
