/** Modules that keep state, natively: what a refused row changed, timers, older schemas, cases. */

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { Column, Failure, Record, Reject, batch, filter, flatMap, map, route } from '../index.js';
import { writeLanes } from '../cases.js';
import { Response, get } from '../http.js';
import { Lane, Row, http, run } from '../testing.js';

const row = (key, value, eventTime = 0) => new Row(value, { key, eventTime });
const text = (bytes) => Buffer.from(bytes).toString();

/** Sums up by key; a row that is no number changes nothing, however late it says so. */
const total = map(
  (value, { key }, state) => {
    const before = state.get(key) ?? 0;
    state.put(key, before + 1_000_000);
    state.put('last', value);
    if (!/^\d+$/.test(value)) throw new Error('no number');
    state.put(key, before + Number(value));
    return state.get(key);
  },
  {
    value: 'text',
    stateSchema: 3,
    migrate: {
      1: (key, euros, state) => state.put(key, euros * 100),
      2: {
        value: 'text',
        each(key, cents, state) {
          const name = text(key).replace(/^cents\//, '');
          if (!/^\d+$/.test(cents)) throw new TypeError('no cents');
          // what was apart before is together now
          state.put('sum', (state.get('sum') ?? 0) + Number(cents));
          state.put(name, Number(cents));
          if (name === 'later') state.setTimer(key, 5);
        },
      },
    },
  },
);

/** Counts by key in windows of ten microseconds, each told when it is over. */
const windows = flatMap(
  (value, { key, eventTime }, state) => {
    const end = eventTime - (eventTime % 10) + 10;
    const name = `${text(key)}/${end}`;
    state.put(name, (state.get(name) ?? 0) + 1);
    state.setTimer(name, end);
    if (value !== 'never') return [];
    state.clearTimer(name, end);
    throw new Reject('never', 'not counted');
  },
  {
    stateSchema: 1,
    * onTimer(key, time, state, params) {
      const count = state.get(key);
      state.delete(key);
      if (params.strict && count > 1) throw new Reject('many', `${count} of ${text(key)}`);
      yield new Record(count, { key: text(key).split('/')[0] });
    },
  },
);

/** Keeps the last value of each key, and tells all of it when a timer fires. */
const latest = batch(
  (rows, out, state) => {
    const [keys, values, times] = [rows.keys(), rows.values(), rows.eventTimes()];
    state.fetch(keys);
    for (let i = 0; i < rows.length; i++) {
      state.putBytes(`of/${text(keys.get(i))}`, values.get(i));
      state.setTimer('all', times[i] + 10n);
    }
    if (rows.length > 2) throw new Failure('many', `too many after ${rows.watermark()}`);
  },
  {
    stateSchema: 1,
    onTimers(fired, out, state) {
      const found = state.scanBytes('of/');
      const column = (side) => Column.of(found.map((entry) => entry[side]));
      out.emit(0, found.map(() => 0), column(0), column(1));
    },
  },
);

test('a function with a state keeps it by key', () => {
  const lane = new Lane(total);
  const out = lane.run([row('a', '1'), row('b', '2'), row('a', 'x'), row('a', '3')]);
  assert.deepEqual(out.json(), [1, 2, 4]);
  assert.equal(out.rejects[0].code, 'error');
  assert.deepEqual(lane.run([row('a', '5'), row('a', 'y')]).json(), [9]);
  assert.deepEqual([lane.get('a'), lane.get('last'), lane.get('c')], [9, '5', null]);
  assert.deepEqual(lane.keys, ['a', 'b', 'last']);
  assert.equal(run(total, ['1']).rejects[0].code, 'key');
  assert.deepEqual(run(total, [row('a', '8')]).json(), [8]);
});

test('what is refused late changes nothing', () => {
  const count = (state) => {
    state.put('count', (state.get('count') ?? 0) + 1);
    return state.get('count');
  };
  const sent = map((port, meta, state) => new Record(count(state), { port }), { value: 'text', stateSchema: 1 });
  let lane = new Lane(sent);
  let out = lane.run(['out', 'nowhere', 'out']);
  assert.deepEqual([out.json(), out.rejects[0].code, lane.get('count')], [[1, 2], 'port', 2]);
  const typed = map(({ n }, meta, state) => ({ n: count(state) && n }), {
    select: { n: 'int64?' }, declare: { n: 'int64' }, stateSchema: 1,
  });
  lane = new Lane(typed);
  out = lane.run([{ n: 3 }, {}, { n: 4 }]);
  assert.deepEqual([out.json(), out.rejects[0].code, lane.get('count')], [[{ n: 3 }, { n: 4 }], 'encode', 2]);
});

test('a batch that fails changes nothing', () => {
  const lane = new Lane(latest);
  lane.run([row('a', 1)]);
  assert.throws(() => lane.run([row('b', 1), row('c', 1), row('d', 1)]), { code: 'many', message: 'too many after 0' });
  assert.deepEqual(lane.keys, ['of/a']);
});

test('a filter and a route can remember', () => {
  const fresh = filter(
    (value, meta, state) => {
      const known = state.getBytes(value) !== null;
      state.putBytes(value, '1');
      return !known;
    },
    { value: 'bytes', stateSchema: 1 },
  );
  const lane = new Lane(fresh);
  assert.deepEqual(lane.run(['a', 'b', 'a', Uint8Array.of(255)]).rows.length, 3);
  assert.deepEqual(lane.run(['b', 'c', Uint8Array.of(255)]).texts(), ['c']);
  const turn = (value, meta, state) => {
    state.put('n', (state.get('n') ?? 0) + 1);
    return state.get('n') % 2 === 1 ? 'odd' : 'even';
  };
  const out = run(route(['even', 'odd'], turn, { stateSchema: 1 }), ['1', '2', '3'], { outputs: ['even', 'odd'] });
  assert.deepEqual([out.texts('odd'), out.texts('even')], [['1', '3'], ['2']]);
});

test('what is kept is JSON or bytes', () => {
  const puts = { bytes: new Uint8Array(1), nothing: undefined, big: 1n };
  const odd = map((value, meta, state) => {
    state.putBytes('é', Uint8Array.of(255));
    state.putBytes(Uint8Array.of(255, 0), 'é');
    assert.equal(text(state.getBytes(Uint8Array.of(255, 0))), 'é');
    if (value in puts) state.put('x', puts[value]);
    return state.get('é');
  }, { value: 'text', stateSchema: 1 });
  const lane = new Lane(odd);
  const codes = lane.run(['bytes', 'nothing', 'big', 'read']).rejects.map(({ code }) => code);
  assert.deepEqual(codes, ['error', 'encode', 'encode', 'state']);
});

test('entries are scanned by prefix', () => {
  const seen = [];
  const found = (state, prefix, options) => seen.push(state.scan(prefix, options).map(([, value]) => value));
  const scans = map((value, meta, state) => {
    const keys = value === 'put' ? ['a', 'b1', 'b2', 'b3', 'c'] : [];
    keys.forEach((key) => state.put(key, key));
    if (value === 'many') for (let i = 0; i < 2500; i++) state.put(`many ${i}`, i);
    if (value === 'count') return state.scan('many').length;
    if (value === 'change') {
      state.delete('b2');
      state.put('b0', 'b0');
      state.put('b9', 'b9');
    }
    found(state, 'b');
    found(state, 'b', { after: 'b1' });
    found(state, '', { limit: 2 });
    found(state, 'b', { limit: 3 });
    if (value === 'change') throw new Reject('no', 'not that');
    return null;
  }, { value: 'text', stateSchema: 1 });
  const lane = new Lane(scans);
  lane.run(['put']);
  lane.run(['change', 'look']);
  const put = [['b1', 'b2', 'b3'], ['b2', 'b3'], ['a', 'b1'], ['b1', 'b2', 'b3']];
  const changed = [['b0', 'b1', 'b3', 'b9'], ['b3', 'b9'], ['a', 'b0'], ['b0', 'b1', 'b3']];
  assert.deepEqual(seen, [...put, ...changed, ...put]);
  assert.deepEqual(lane.run(['many', 'count']).json(), [2500]);
  assert.deepEqual(lane.run(['count']).json(), [2500]);
});

test('functions that cannot keep state', () => {
  const each = (value) => value;
  const wrong = [
    () => map(each, { onTimer: each }), () => map(each, { migrate: { 1: each } }), () => map(each, { stateSchema: '1' }),
    () => map(each, { stateSchema: 1, migrate: { 1: each } }), () => map(each, { stateSchema: 1, migrate: { x: each } }),
    () => map(each, { stateSchema: 2, migrate: { 1: 'each' } }), () => map(each, { stateSchema: 1, onTimer: 1 }),
    () => map(each, { stateSchema: 2, migrate: { 1: { each, value: 'xml' } } }),
    () => map(each, { stateSchema: 1, onTimers: each }), () => batch(each, { stateSchema: 1, onTimer: each }),
    () => new Lane(map(each)),
  ];
  for (const make of wrong) assert.throws(make, TypeError);
});

test('windows are told once in order of their ends', () => {
  const lane = new Lane(windows, { latenessUs: 5 });
  let out = lane.run([row('b', 1, 3), row('a', 1, 12), row('a', 1, 14), row('b', '"never"', 9)]);
  assert.deepEqual([out.rows, out.rejects[0].code], [[], 'never']);
  assert.deepEqual(lane.timers, [[10, 'b/10'], [20, 'a/20']]);
  out = lane.run([row('a', 1, 8), row('a', 1, 26)]);
  const told = out.rows.map(({ eventTime, key, value, parent }) => [Number(eventTime), text(key), text(value), parent]);
  assert.deepEqual(told, [[10, 'a', '1', 1], [10, 'b', '1', 1], [20, 'a', '2', 1]]);
  assert.deepEqual(lane.run([row('c', 1, 27)]).rows, []);
  assert.equal(lane.keys.length, 2);
});

test('a timer that is refused is gone and changes nothing', () => {
  const lane = new Lane(windows, { params: { strict: true } });
  const out = lane.run([row('a', 1, 1), row('a', 1, 2), row('b', 1, 12)]);
  assert.deepEqual(out.rejects, [{ row: 2, code: 'many', message: '2 of a/10' }]);
  assert.deepEqual([lane.keys, lane.timers], [['a/10', 'b/20'], [[20, 'b/20']]]);
});

test('a batch is given all timers at once', () => {
  const lane = new Lane(latest);
  assert.deepEqual(lane.run([row('b', '1', 0), row('a', '2', 1)]).rows, []);
  const out = lane.run([row('b', '3', 10)]);
  assert.deepEqual(out.rows.map(({ key, value }) => [text(key), text(value)]), [['of/a', '2'], ['of/b', '3']]);
});

test('a timer may make typed columns', () => {
  const quiet = map(
    ({ cents }, { key, eventTime }, state) => {
      state.put(key, cents);
      state.setTimer(key, eventTime + 1);
    },
    {
      select: { cents: 'int64?' },
      declare: { cents: 'int64' },
      stateSchema: 1,
      onTimer: (key, time, state) => ({ cents: state.get(key) }),
    },
  );
  const out = run(quiet, [new Row({ cents: 5 }, { key: 'a' }), new Row({}, { key: 'b', eventTime: 9 })]);
  assert.deepEqual(out.texts(), ['{"cents":5}']);
});

test('a function takes over what it kept before', () => {
  assert.deepEqual([total.described.state_schema, total.described.migrates], [3, [1, 2]]);
  assert.deepEqual([map(text).described.state_schema, windows.described.migrates], [null, null]);
  let lane = new Lane(total).migrate(1, { ann: 5, bob: '7' });
  assert.deepEqual(lane.run([row('ann', '1')]).json(), [501]);
  // more than one part, in any order
  const numbers = Array.from({ length: 2500 }, (_, i) => [`cents/${String(2499 - i).padStart(4, '0')}`, String(2499 - i)]);
  lane = new Lane(total).migrate(2, new Map([...numbers, ['later', new Uint8Array([49])]]));
  assert.deepEqual([lane.get('sum'), lane.get('0207'), lane.keys.length], [(2499 * 2500) / 2 + 1, 207, 2502]);
  assert.deepEqual(lane.timers, [[5, 'later']]);
});

test('what cannot be taken over is named and nothing changes', () => {
  const lane = new Lane(total).migrate(1, { ann: 5 });
  const failed = { code: 'error', message: /^key "bob": TypeError: no cents \(state\.test\.js, line \d+/ };
  assert.throws(() => lane.migrate(2, { ann: '6', bob: 'seven' }), failed);
  assert.throws(() => lane.migrate(1, { ann: '{' }), { code: 'json' });
  assert.deepEqual([lane.get('ann'), lane.keys], [500, ['ann']]);
  assert.throws(() => lane.migrate(4, {}), /takes over from schemas 1, 2, not from 4/);
});

/** The cases that these runs write. */
function written(work) {
  const folder = mkdtempSync(join(tmpdir(), 'rustmq-'));
  const path = join(folder, 'cases');
  process.env.RUSTMQ_CASES = path;
  try {
    work();
    writeLanes();
    const lines = existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
    return lines.map((line) => JSON.parse(line));
  } finally {
    delete process.env.RUSTMQ_CASES;
    rmSync(folder, { recursive: true });
  }
}

test('a lane is one case with what it kept', () => {
  const cases = written(() => {
    const lane = new Lane(total, { latenessUs: 3 }).migrate(1, new Map([['b', 5], [Uint8Array.of(255), 1]]));
    lane.run([row('a', '1', 2), row('b', '2', 4)]);
    lane.run([row('a', 'x', 9)]);
    run(windows, [row('a', 1, 3)]);
  });
  const [{ lane }, other] = cases;
  assert.deepEqual([lane.lateness_us, lane.migrated], [3, { schema: 1, kept: [['b', '5'], [{ hex: 'ff' }, '1']] }]);
  assert.deepEqual(lane.batches.map(({ rows }) => rows.length), [2, 1]);
  assert.equal(lane.batches[0].out[1].value, '502');
  assert.deepEqual(lane.kept, [['a', '1'], ['b', '502'], ['last', '"2"'], [{ hex: 'ff' }, '100']]);
  assert.deepEqual(other.lane.timers, [[10, 'a/10']]);
});

test('lanes that ask others or migrate later are no cases', () => {
  const asks = map(() => get('https://a.example/').status, { stateSchema: 1 });
  const cases = written(() => {
    http(() => new Response(200));
    const lane = new Lane(asks);
    lane.run([1]);
    lane.run([2]);
    const later = new Lane(total);
    later.run([row('a', '1')]);
    later.migrate(1, { a: 2 }).run([row('a', '1')]);
  });
  assert.deepEqual(cases, []);
});
