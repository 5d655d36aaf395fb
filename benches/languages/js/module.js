/** What the boundary costs from JavaScript: the work of `tests/guests/boundary`, `-json` and `-columns`. */

import { batch, map } from '#rustmq';

const convert = map(({ carrier, flight, origin, dest, dep_delay, distance, tail }) => {
  const [hours, far] = [dep_delay / 60, distance > 1000];
  return { carrier, flight, origin, dest, hours, far, distance, tail };
});

const select = { flight: 'int64', dep_delay: 'float64', distance: 'int64' };
const declare = { score: 'float64' };
const scored = map(
  ({ flight, dep_delay, distance }) => ({ score: distance / (dep_delay + flight) }),
  { select, declare },
);

const kinds = {
  forward(rows, out) {
    out.forward(0, all(rows));
  },
  filter(rows, out) {
    const { data, offsets } = rows.values();
    const kept = new Uint32Array(rows.length);
    let count = 0;
    for (let row = 0; row < rows.length; row++) {
      if ((data[offsets[row + 1] - 2] & 1) === 0) kept[count++] = row;
    }
    out.forward(0, kept.subarray(0, count));
  },
  copy(rows, out) {
    out.emit(0, all(rows), rows.keys(), rows.values());
  },
  json(rows, out) {
    convert.process(rows, out);
  },
  columns(rows, out) {
    scored.process(rows, out);
  },
  whole(rows, out) {
    const [flight, distance] = [rows.ints('flight').exact(), rows.ints('distance').exact()];
    const delays = rows.floats('dep_delay').values;
    const scores = new Float64Array(rows.length);
    for (let row = 0; row < rows.length; row++) scores[row] = distance(row) / (delays[row] + flight(row));
    out.emitColumns(0);
    out.setFloats('score', scores);
  },
};

function all(rows) {
  const numbers = new Uint32Array(rows.length);
  for (let row = 0; row < rows.length; row++) numbers[row] = row;
  return numbers;
}

export default batch((rows, out, { work }) => kinds[work](rows, out), { select, declare });
