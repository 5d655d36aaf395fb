/** What the contract cannot hold refuses its row, or is cut to what it can: natively as in the component. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Counter, Histogram, Reject, Retry, map } from '../index.js';
import { Response, get } from '../http.js';
import { Row, http, run } from '../testing.js';

const LAST_MS = 2 ** 32 - 1;
const codes = (out) => out.rejects.map(({ row, code }) => [row, code]);

test('times to wait', () => {
  for (const [after, fits] of [[-1, 0], [0.5, 1], [7, 7], [4294968000, LAST_MS], [Infinity, LAST_MS], [NaN, 0]]) {
    assert.equal(new Retry(after, 'later').afterMs, fits);
  }
  const late = (after) => () => new Response(429, '', { headers: { 'retry-after': after } }).ok();
  assert.throws(late('9'.repeat(400)), { afterMs: LAST_MS });
  const asked = [];
  http((request) => asked.push(request) && new Response(200));
  for (const [timeoutMs, fits] of [[0.5, 1], [2 ** 40, LAST_MS], [null, undefined]]) {
    get('https://a.example/', { timeoutMs });
    assert.equal(asked.at(-1).timeoutMs, fits);
  }
});

test('a counter takes whole numbers that do not shrink it', () => {
  const [seen, sizes] = [new Counter('seen_amounts'), new Histogram('seen_sizes', [1])];
  const counts = map((value) => {
    if (value === 'size') sizes.observe(1n);
    seen.add(value === 'big' ? 1n : value);
  });
  const out = run(counts, [3, -1, 0.5, new Row('"big"'), new Row('"size"'), 4]);
  assert.deepEqual(codes(out), [1, 2, 3, 4].map((row) => [row, 'error']));
  assert.deepEqual(out.counters, { seen_amounts: 7 });
});
