/** What the contract cannot hold refuses its row, or is cut to what it can: natively as in the component. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Counter, Failure, Histogram, Record, Retry, batch, filter, flatMap, map, route } from '../index.js';
import { Response, get } from '../http.js';
import { Lane, Row, http, run } from '../testing.js';

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

test('a time beyond 64 bits refuses its row alone', () => {
  const times = [2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), 2n ** 64n + 5n, 5n];
  const timed = map((n) => new Record(n, { eventTime: times[n] }));
  const sets = map((n, meta, state) => state.setTimer('k', times[n]), { stateSchema: 1 });
  for (const module of [timed, sets]) {
    assert.deepEqual(codes(run(module, [0, 1, 2, 3, 4])), [[1, 'encode'], [3, 'encode']]);
  }
  assert.deepEqual(run(timed, [0, 1, 2, 3, 4]).rows.map(({ eventTime }) => eventTime), [times[0], times[2], 5n]);
});

test('async functions are no modules', () => {
  const [later, none] = [async () => true, () => null];
  const wrong = [
    () => map(later), () => filter(later), () => flatMap(async function* many() { yield 1; }), () => batch(later),
    () => route(['a'], later), () => map(none, { stateSchema: 1, onTimer: later }),
    () => batch(none, { stateSchema: 1, onTimers: later }), () => map(none, { stateSchema: 2, migrate: { 1: later } }),
  ];
  for (const make of wrong) assert.throws(make, /are not `async`/);
});

test('what nobody awaits is refused', () => {
  const later = () => Promise.resolve(true);
  const typed = map(later, { declare: { a: 'bool?' } });
  const kept = map((n, meta, state) => state.put('k', later()), { stateSchema: 1 });
  for (const module of [map(later), filter(later), flatMap(later), route(['out'], later), typed, kept,
    flatMap(() => [later()]), map(() => new Record(later()))]) {
    assert.deepEqual(codes(run(module, [1])), [[0, 'encode']]);
  }
  assert.throws(() => run(batch(later), [1]), Failure);
  const keeping = map(() => null, { stateSchema: 2, migrate: { 1: later } });
  assert.throws(() => new Lane(keeping).migrate(1, { a: 1 }), /nobody awaits/);
});

test('console tells the log of a component', async () => {
  const own = globalThis.console;
  try {
    const { console } = await import('../console.js');
    const circle = {};
    circle.circle = circle;
    const says = map(() => {
      console.log('a', 1, { b: [null] }, undefined, 5n);
      console.warn(new TypeError('x'), circle);
      console.debug(`b\n\n${'c'.repeat(5000)}`);
      console.assert(false, 'odd');
      console.groupEnd();
    });
    const { log, rejects } = run(says, [1]);
    assert.deepEqual(rejects, []);
    assert.deepEqual(log, [
      ['info', 'a 1 {"b":[null]} undefined 5'], ['warn', 'TypeError: x [object Object]'],
      ['debug', 'b'], ['debug', 'c'.repeat(1024)], ['error', 'Assertion failed: odd'],
    ]);
  } finally {
    globalThis.console = own;
  }
});
