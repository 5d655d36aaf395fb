/** The third of three: passes readings on, and says where it is too hot. */

import { Record, flatMap } from '#rustmq';

const params = {
  type: 'object',
  properties: { above: { type: 'number', description: 'Degrees Celsius that are too hot.' } },
  required: ['above'],
  additionalProperties: false,
};

export default flatMap(
  function* (reading, meta, { above }) {
    yield reading;
    if (reading.celsius > above) {
      const text = `${reading.sensor}: ${reading.celsius.toFixed(1)} °C`;
      const headers = { offset: String(meta.offset) };
      yield new Record({ text }, { key: reading.sensor, port: 'alerts', headers });
    }
  },
  { params },
);
