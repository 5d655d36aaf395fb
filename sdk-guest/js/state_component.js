/** The host's `packed-state`; `rustmq module build` puts this file in the place of `state_host.js`. */

import * as state from 'rustmq:etl/packed-state@0.1.5';
import { Column } from './batch.js';
import { bytes } from './typed.js';

/** A column of the contract's lists: arrays of our own, since what comes in is of another realm. */
function columnOf({ offsets, data, validity }) {
  return new Column(Uint32Array.from(offsets), bytes(data), bytes(validity));
}

export const kept = {
  get: (keys) => Column.unpack(state.get(keys.pack())),
  put: (keys, values) => state.put(keys.pack(), values.pack()),
  scan(prefix, after, limit) {
    const { keys, values } = state.scan(prefix, after, limit);
    return [Column.unpack(keys), Column.unpack(values)];
  },
  timers: (keys, times, on) => (on ? state.setTimers : state.clearTimers)(keys.pack(), bytes(times)),
  entries: ({ keys, values }) => [columnOf(keys), columnOf(values)],
};
