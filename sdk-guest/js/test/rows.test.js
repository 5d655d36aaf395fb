/** Rows of typed columns, natively through the harness: JSON in, columns, JSON out. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Column, Ints, Record, Reject, batch, filter, flatMap, map, route } from '../index.js';
import { Row, run } from '../testing.js';

const text = (bytes) => (bytes === null ? null : Buffer.from(bytes).toString());
const refused = (out) => out.rejects.map(({ row, code, message }) => [row, code, message]);

const late = map(
  ({ carrier, dep_delay, ts, type }) => {
    if (dep_delay === null) throw new Reject('delay', 'no delay');
    if (dep_delay <= 15) return null;
    const due = ts + Math.trunc(dep_delay) * 60_000_000;
    return { carrier, hours: dep_delay / 60, due, known: type !== null && type !== '?' };
  },
  {
    select: { carrier: 'string', dep_delay: 'float64?', ts: 'timestamp', type: 'string?' },
    declare: { carrier: 'string', hours: 'float64', due: 'timestamp', known: 'bool' },
  },
);

const flights = [
  '{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z","type":"A320"}',
  '{"carrier":"AA","dep_delay":1.5,"ts":0}',
  '{"dep_delay":16,"ts":0}',
  '{"carrier":"AA","ts":0}',
  '{"carrier":7,"dep_delay":20,"ts":0}',
  'not json',
  '{"carrier":"é","dep_delay":30,"ts":"1970-01-01T01:00:00.000001234+01:00","extra":[]}',
];

test('a map reads columns and makes columns', () => {
  const out = run(late, flights);
  assert.deepEqual(out.rows.map(({ parent, value }) => [parent, text(value)]), [
    [0, '{"carrier":"UA","hours":1.5,"due":"2013-01-01T06:30:00.000000Z","known":true}'],
    [6, '{"carrier":"é","hours":0.5,"due":"1970-01-01T00:30:00.000001Z","known":false}'],
  ]);
  assert.deepEqual(refused(out).slice(0, 3), [
    [2, 'null', 'field `carrier` is null'],
    [3, 'delay', 'no delay'],
    [4, 'schema', 'field `carrier` (string): found 7'],
  ]);
  assert.deepEqual(refused(out)[3].slice(0, 2), [5, 'schema']);
});

test('what does not fit refuses its row alone', () => {
  const wrong = {
    3: { n: null, text: 'x' },
    4: { n: 1.5, text: 'x' },
    5: { n: 2 ** 53, text: 'x' },
    6: { n: 2n ** 63n, text: 'x' },
    7: { n: 7, text: new Uint8Array(1) },
    8: { n: 8, flag: 1 },
    9: 'nine',
    10: { n: 10, texts: 'x' },
  };
  const each = flatMap(
    function* ({ n }) {
      yield new Record({ n }, { key: String(n) });
      yield wrong[n] ?? { n: BigInt(-n), text: 'é'.repeat(Math.max(n, 0)), flag: n === 1 };
    },
    { select: { n: 'int64' }, declare: { n: 'int64', text: 'string?', flag: 'bool?' } },
  );
  const rows = Array.from({ length: 10 }, (_, i) => new Row({ n: i + 1 }, { key: 'k' }));
  const out = run(each, [...rows, '{"n":9007199254740992}', '{"n":-9007199254740991}']);
  assert.deepEqual(out.rows.map(({ parent, key, value }) => [parent, text(key), text(value)]).slice(0, 4), [
    [0, '1', '{"n":1,"text":null,"flag":null}'],
    [0, 'k', '{"n":-1,"text":"é","flag":true}'],
    [1, '2', '{"n":2,"text":null,"flag":null}'],
    [1, 'k', '{"n":-2,"text":"éé","flag":false}'],
  ]);
  assert.equal(out.json()[4].n, -9007199254740991);
  assert.deepEqual(refused(out).map(([row, code]) => [row, code]), [
    ...Array.from({ length: 8 }, (_, i) => [i + 2, 'encode']), [10, 'range'],
  ]);
  assert.deepEqual(out.rejects.map((r) => r.message), [
    'field `n` is null, and is declared without a ?',
    'field `n`: int64 cannot be 1.5',
    'field `n`: int64 cannot be 9007199254740992',
    'field `n`: int64 cannot be 9223372036854775808',
    'field `text`: string cannot be 0',
    'field `flag`: bool cannot be 1',
    'the module declares rows, but returned "nine"',
    'no field `texts` is declared',
    'field `n` is beyond 2^53, where numbers are not exact',
  ]);
});

test('records of rows say more', () => {
  const count = flatMap(
    (value, meta, { factor }) => [
      { n: 0 },
      new Record({ n: factor, data: new Uint8Array(0) }, { key: 'own', eventTime: meta.eventTime + 1 }),
      new Record({ n: 2, data: Uint8Array.of(255, 255) }, { headers: { n: '2' }, port: 'rest' }),
    ],
    { value: 'text', declare: { n: 'int64', data: 'bytes?' } },
  );
  const rows = [new Row('abc', { key: 'k', eventTime: 5 })];
  const out = run(count, rows, { params: { factor: 2 }, outputs: ['out', 'rest'] });
  assert.deepEqual(out.texts(), ['{"n":0,"data":null}', '{"n":2,"data":""}']);
  assert.deepEqual(out.rows.map((row) => [text(row.key), row.eventTime]), [['k', 5n], ['own', 6n], ['k', 5n]]);
  const [rest] = out.on('rest');
  assert.deepEqual([text(rest.value), text(rest.headers.get('n'))], ['{"n":2,"data":"//8="}', '2']);
});

test('either side may be json', () => {
  const typed = map(({ n }) => ({ n }), { declare: { n: 'float64' } });
  assert.deepEqual(run(typed, [{ n: 3 }]).texts(), ['{"n":3.0}']);
  const plain = map(({ n }) => ({ n: n + 1 }), { select: { n: 'int64' } });
  assert.deepEqual(run(plain, [{ n: 3 }, '{"n":4.0}']).json(), [{ n: 4 }, { n: 5 }]);
});

test('rows are passed on as they came', () => {
  const options = { select: { n: 'int64' } };
  const rows = ['{"n":3,"more":1}', '{"n":30}', '{"n":null}'];
  assert.deepEqual(run(filter(({ n }) => n < 10, options), rows).texts(), ['{"n":3,"more":1}']);
  const sizes = route(['small', 'large'], ({ n }) => (n < 10 ? 'small' : 'large'), options);
  const routed = run(sizes, rows, { outputs: ['small', 'large'] });
  assert.deepEqual(routed.rows.map((row) => row.port), ['small', 'large']);
  assert.deepEqual(refused(routed), [[2, 'null', 'field `n` is null']]);
});

const some = { flag: 'bool?', n: 'int64?', x: 'float64?', text: 'string?', raw: 'bytes?', at: 'timestamp?' };

test('a module of whole columns', () => {
  const work = batch(
    (rows, out) => {
      out.emitColumns(0);
      out.setBools('flag', rows.bools('flag'));
      out.setInts('n', rows.ints(1));
      out.setFloats(2, [...rows.floats('x')].map((x) => (x === null ? null : x * 2)));
      out.setBytes('text', rows.bytes('text').texts());
      out.setBytes('raw', rows.bytes('raw'));
      out.setInts('at', BigInt64Array.from({ length: rows.length }, (_, i) => BigInt(i)));
      assert.throws(() => rows.floats('y'), /no field y: the module selects flag, n, x/);
    },
    { select: some, declare: { out: some } },
  );
  for (let absent = 1; absent < 12; absent++) {
    const row = (i) => ({ flag: i % 3 === 0, n: i - 5, x: i / 2, text: `${'é'.repeat(i % 3)}x`, raw: 'AAE=' });
    const rows = Array.from({ length: 20 }, (_, i) => (i % absent === absent - 1 ? {} : row(i)));
    const nothing = { flag: null, n: null, x: null, text: null, raw: null };
    run(work, rows).json().forEach((made, i) => {
      const at = `1970-01-01T00:00:00.${String(i).padStart(6, '0')}Z`;
      assert.deepEqual(made, { ...nothing, ...rows[i], x: rows[i].x === undefined ? null : rows[i].x * 2, at });
    });
  }
});

test('columns of some rows on some outputs', () => {
  const work = batch(
    (rows, out) => {
      const ints = rows.ints('n');
      assert.deepEqual([ints.get(0), ints.get(1), ints.length, [...ints]], [3n, null, 2, [3n, null]]);
      assert.deepEqual([...Ints.of([-1, null, 2n ** 40n]).values], [-1n, 0n, 2n ** 40n]);
      out.emitColumns(1, [1, 1]);
      out.setKeys(Column.ofTexts(['a', null]));
      out.setFloats('x', [1, Infinity]);
      out.setHeader('h', Column.ofTexts([null, 'h']));
    },
    { select: some, declare: { rest: some } },
  );
  const out = run(work, [{ n: 3 }, new Row({}, { key: 'k' })], { outputs: ['out', 'rest'] });
  assert.deepEqual(out.rows.map((row) => [text(row.key), row.headers.size]), [['a', 0], [null, 1]]);
  assert.deepEqual(out.json('rest').map((row) => [row.x, row.text]), [[1, null], [null, null]]);
});

test('fields that cannot be say why', () => {
  assert.throws(() => map(() => 1, { select: { n: 'number' } }), /field n may be bool, int64, .* not number/);
  assert.throws(() => map(() => 1, { declare: {} }), /at least one field/);
  assert.throws(() => map(() => 1, { value: 'text', select: { n: 'int64' } }), /leave out value/);
  assert.throws(() => run(batch((rows) => rows.ints('n')), [1]), /no field n: the module selects none/);
});

test('what the host traps on fails natively', () => {
  const one = Column.ofTexts(['x']);
  const wrong = [
    [(out) => out.forward(1, [0]), /port 1, but 1 outputs/],
    [(out) => out.emit(-1, [0], one, one), /port -1/],
    [(out) => out.emit('out', [0], one, one), /port out/],
    [(out) => out.emit(0, [2], one, one), /row 2, but the batch has 2 rows/],
    [(out) => out.emit(0, [0, 1], one, one), /emit: keys: 1 values for 2 rows/],
    [(out) => out.emit(0, [0], one, Column.of([])), /emit: values: 0 values for 1 rows/],
    [(out) => out.emitColumns(2), /port 2/],
    [(out) => [out.emitColumns(0), out.setKeys(one)], /set-keys: 1 values for 2 rows/],
    [(out) => [out.emitColumns(0), out.setInts('n', [1])], /field `n`: 1 values for 2 rows/],
    [(out) => [out.emit(0, [0], one, one), out.setInts(1, [1])], /no emit of columns before/],
    [(out) => [out.emit(0, [0], one, one), out.setEventTimes([1n, 2n])], /2 values for 1 rows/],
    [(out) => [out.emit(0, [0], one, one), out.setHeader('h', Column.of([]))], /set-header: 0 values/],
    [(out) => [out.forward(0, [0]), out.setEventTimes([1n])], /no emit before/],
    [(out) => out.setHeader('h', one), /no emit before/],
    [(out) => [out.emitColumns(0), out.setBytes('raw', [1, 2])], /made of bytes/],
    [() => Column.of(['abc']), /Column.ofTexts/],
  ];
  for (const [work, why] of wrong) {
    assert.throws(() => run(batch((rows, out) => void work(out), { declare: some }), [1, 2]), why);
  }
});

test('an integer that is not there is no zero', () => {
  const exact = Ints.of([5, null, 2n ** 60n]).exact();
  assert.deepEqual([exact(0), exact(1), exact(2)], [5, null, NaN]);
});

test('times that the calendar lacks', () => {
  const times = [
    '2013-02-30T00:00:00Z', '2013-01-01T24:00:00Z', '2013-01-01T23:59:59+25:00', '2012-02-29T23:59:59.5+01:00',
  ];
  const kept = map(({ at }) => at, { select: { at: 'timestamp' } });
  const out = run(kept, times.map((at) => ({ at })));
  assert.deepEqual(refused(out).map(([row, code]) => [row, code]), [[0, 'schema'], [1, 'schema'], [2, 'schema']]);
  assert.deepEqual(out.json(), [Date.parse(times[3]) * 1000]);
});

test('a field may be named as what every object has', () => {
  const declare = { constructor: 'string?', toString: 'string?', n: 'int64' };
  class Made {
    get n() {
      return 2;
    }
  }
  const rows = [{ n: 1 }, new Made(), { n: 3, constructor: 'c', toString: 't' }];
  const out = run(map((i) => rows[i], { declare }), [0, 1, 2]);
  assert.deepEqual(out.texts().map((text) => text.replaceAll('"', '')), [
    '{constructor:null,toString:null,n:1}', '{constructor:null,toString:null,n:2}', '{constructor:c,toString:t,n:3}',
  ]);
});
