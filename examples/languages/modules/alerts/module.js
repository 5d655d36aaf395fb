/** The third of three: passes readings on, and says where it became too hot: once, until it is not any more. */

import { Record, flatMap } from '#rustmq';

const params = {
  type: 'object',
  properties: { above: { type: 'number', description: 'Degrees Celsius that are too hot.' } },
  required: ['above'],
  additionalProperties: false,
};

export default flatMap(
  function* (reading, meta, state, { above }) {
    yield reading;
    // readings have their sensor as key, so that all of one meet in a lane
    const [hot, was] = [reading.celsius > above, state.get(reading.sensor) ?? false];
    if (hot !== was) state.put(reading.sensor, hot);
    if (hot && !was) {
      const text = `${reading.sensor}: ${reading.celsius.toFixed(1)} °C`;
      const headers = { offset: String(meta.offset) };
      yield new Record({ text }, { key: reading.sensor, port: 'alerts', headers });
    }
  },
  { params, stateSchema: 1 },
);
