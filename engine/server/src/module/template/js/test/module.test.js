import assert from 'node:assert/strict';
import { test } from 'node:test';

import { run } from '#rustmq/testing';
import clean from '../module.js';

test('readings become fahrenheit', () => {
  const out = run(clean, [{ sensor: 'roof', celsius: 20 }, { sensor: 'cellar' }]);
  assert.deepEqual(out.json('out'), [{ sensor: 'roof', fahrenheit: 68 }]);
  assert.deepEqual([out.rejects[0].row, out.rejects[0].code], [1, 'no-value']);
});
