import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Lane } from '#rustmq/testing';
import alerts from '../module.js';

test('what became hot is said once', () => {
  const lane = new Lane(alerts, { params: { above: 24 }, outputs: ['out', 'alerts'] });
  const of = (sensor, celsius) => ({ sensor, celsius });
  const readings = [of('roof', 25), of('cellar', 12), of('roof', 26)];
  const out = lane.run(readings);
  assert.deepEqual(out.json('out'), readings);
  assert.deepEqual(out.json('alerts'), [{ text: 'roof: 25.0 °C' }]);
  assert.deepEqual(lane.run([of('roof', 30), of('roof', 20), of('roof', 31)]).json('alerts'), [{ text: 'roof: 31.0 °C' }]);
});
