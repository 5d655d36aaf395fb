/** The host's `state` and `timers`; `rustmq module build` puts this file in the place of `state_host.js`. */

import * as state from 'rustmq:etl/state@0.1.4';
import { clear, set } from 'rustmq:etl/timers@0.1.4';
import { Column } from './batch.js';
import { bytes } from './typed.js';

/** A column of the contract's lists: arrays of our own, since what comes in is of another realm. */
function columnOf({ offsets, data, validity }) {
  return new Column(Uint32Array.from(offsets), bytes(data), bytes(validity));
}

const lists = ({ offsets, data, validity }) => ({ offsets, data, validity });

export const kept = {
  get: (keys) => columnOf(state.get(lists(keys))),
  put: (keys, values) => state.put(lists(keys), lists(values)),
  scan(prefix, after, limit) {
    const { keys, values } = state.scan(prefix, after, limit);
    return [columnOf(keys), columnOf(values)];
  },
  timers: (keys, times, on) => (on ? set : clear)(lists(keys), times),
  entries: ({ keys, values }) => [columnOf(keys), columnOf(values)],
};
