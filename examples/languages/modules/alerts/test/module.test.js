import assert from 'node:assert/strict';
import { test } from 'node:test';

import { run } from '#rustmq/testing';
import alerts from '../module.js';

test('what is hot is said', () => {
  const readings = [{ sensor: 'roof', celsius: 25 }, { sensor: 'cellar', celsius: 12 }];
  const out = run(alerts, readings, { params: { above: 24 }, outputs: ['out', 'alerts'] });
  assert.deepEqual(out.json('out'), readings);
  assert.deepEqual(out.json('alerts'), [{ text: 'roof: 25.0 °C' }]);
});
