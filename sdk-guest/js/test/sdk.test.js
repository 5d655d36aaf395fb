/** The SDK's own rules. Run in `sdk-guest/js`: `node --test test/*.test.js`. */

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import {
  Counter, Failure, Histogram, Lookup, Record, Reject, Retry, TOMBSTONE, batch, filter, flatMap, log, map, route,
} from '../index.js';
import { Response, get, post, send, trouble } from '../http.js';
import { Sink } from '../native.js';
import { said } from '../place.js';
import { register } from '../telemetry.js';
import { Row, http, run } from '../testing.js';

const words = flatMap(
  function* (text, meta, params) {
    for (const word of text.split(' ')) {
      if (word === 'later') throw new Retry(5, 'later', 'not yet');
      if (word === 'bad') throw new Reject('bad', 'a bad word');
      const headers = params.tell ? { from: String(meta.offset) } : undefined;
      const port = word.length > 3 ? 'long' : undefined;
      yield new Record(word, { key: word, eventTime: meta.eventTime + 1, headers, port });
    }
  },
  { value: 'text' },
);
const same = map((value) => value);
const both = ['out', 'long'];
const text = (bytes) => Buffer.from(bytes).toString();

test('what a record does not say is its parent’s', () => {
  const rows = [new Row('a word', { key: 'k', eventTime: 3, headers: { h: 'x' } }), 'b'];
  const out = run(words, rows, { params: { tell: true }, outputs: both });
  assert.deepEqual(out.json('out'), ['a', 'b']);
  const [long] = out.on('long');
  assert.deepEqual([text(long.key), long.eventTime, long.parent], ['word', 4n, 0]);
  assert.deepEqual([...long.headers].map(([name, v]) => [name, text(v)]), [['h', 'x'], ['from', '0']]);
  const [kept] = run(same, [new Row(1, { key: 'k', eventTime: 7, headers: { h: 'x' } })]).rows;
  assert.deepEqual([text(kept.key), kept.eventTime, text(kept.headers.get('h'))], ['k', 7n, 'x']);
});

const cities = new Lookup('cities');
const city = map((name) => cities.get(name)?.city, { value: 'text' });
const allCities = batch((rows, out) => {
  out.emit(0, Array.from({ length: rows.length }, (_, i) => i), rows.keys(), cities.getAll(rows.keys()));
});

test('tables are what the test gives', () => {
  const out = run(city, ['ann', 'bob'], { lookups: { cities: { ann: { city: 'Ghent' } } } });
  assert.deepEqual(out.json('out'), ['Ghent']);
  const rows = [new Row('', { key: 'a' }), new Row(''), new Row('', { key: 'b' })];
  const tables = { more: {}, cities: new Map([['a', Uint8Array.of(255)], ['c', 'x']]) };
  const values = run(allCities, rows, { lookups: tables }).rows.map((row) => row.value);
  assert.deepEqual(values, [Uint8Array.of(255), null, null]);
  assert.equal(run(city, ['ann'], { lookups: { cities: { ann: '{' } } }).rejects[0].code, 'lookup');
  assert.match(run(city, ['ann']).rejects[0].message, /no table cities/);
});

test('a refused row has no output and a retry ends the batch', () => {
  const out = run(words, ['a bad b', 'c', 'd later', 'e'], { outputs: both });
  assert.deepEqual(out.json('out'), ['c']);
  assert.deepEqual(out.rejects, [{ row: 0, code: 'bad', message: 'a bad word' }]);
  assert.deepEqual(out.retries, [{ row: 2, code: 'later', message: 'not yet' }]);
  const [reject] = run(words, ['a word', 'b']).rejects;
  assert.equal(reject.message, 'no output "long"; the node declares: out');
});

test('values that are not JSON, UTF-8 or there', () => {
  const out = run(same, ['{', 'NaN', ' 1 ', '[1] 2', null, new Uint8Array([255])]);
  assert.deepEqual(out.json(), [1]);
  const codes = out.rejects.map(({ row, code }) => `${row} ${code}`);
  assert.deepEqual(codes, ['0 json', '1 json', '3 json', '4 no-value', '5 json']);
  const refused = run(words, [new Uint8Array([255]), null]).rejects.map(({ code }) => code);
  assert.deepEqual(refused, ['utf-8', 'no-value']);
});

test('what cannot be written is refused', () => {
  const odd = map((n) => [10n, () => 1, 'é\n', null][n]);
  const out = run(odd, ['0', '1', '2', '3']);
  assert.deepEqual(out.texts(), ['"é\\n"']);
  assert.deepEqual(out.rejects.map(({ code }) => code), ['encode', 'encode']);
});

test('bytes and text may be nothing', () => {
  const rows = ['null', null, Uint8Array.of(255)];
  const seen = (value) => run(map((found) => String(found), { value }), rows);
  assert.deepEqual(seen('bytes?').json(), ['110,117,108,108', 'null', '255']);
  assert.deepEqual([seen('text?').json(), seen('text?').rejects[0].code], [['null', 'null'], 'utf-8']);
  assert.throws(() => map(() => 1, { value: 'json?' }), /not "json\?"/);
});

test('bytes go as they are', () => {
  const raw = map((bytes) => (bytes.length === 4 ? TOMBSTONE : bytes), { value: 'bytes' });
  const values = run(raw, [new Uint8Array([255, 0]), 'gone', 'x']).rows.map(({ value }) => value);
  assert.deepEqual(values.map((v) => v && [...v]), [[255, 0], null, [120]]);
});

test('what is thrown and not caught refuses the row', () => {
  const out = run(filter((value) => value.n.length > 1), ['{"n":"ab"}', '{}']);
  assert.deepEqual(out.texts(), ['{"n":"ab"}']);
  assert.equal(out.rejects[0].code, 'error');
  assert.match(out.rejects[0].message, /^TypeError: .* \(sdk\.test\.js, line \d+/);
  const deep = () => JSON.parse('{');
  const thrown = [() => deep(), () => { throw 'text'; }, () => { throw Object.create(null); }];
  const [json, text, none] = run(map((i) => thrown[i]()), [0, 1, 2]).rejects.map(({ message }) => message);
  assert.match(json, /^SyntaxError: .* \(sdk\.test\.js, line \d+, in deep\)$/);
  assert.deepEqual([text, none], ['text', 'what was thrown cannot be said']);
});

test('routes and batches', () => {
  const sorted = route(['small', 'big'], (n) => (n > 9 ? 'big' : 'small'));
  const out = run(sorted, ['1', '10'], { outputs: ['small', 'big'] });
  assert.deepEqual([out.texts('small'), out.texts('big')], [['1'], ['10']]);
  const backwards = batch((rows, box) => {
    const order = Array.from({ length: rows.length }, (_, i) => rows.length - 1 - i);
    box.emit(0, order, rows.keys().gather(order), rows.values().gather(order));
  });
  assert.deepEqual(run(backwards, ['1', null, '3']).texts(), ['3', '', '1']);
});

test('numbers and lines are told', () => {
  const [seen, size] = [new Counter('seen'), new Histogram('size', [1, 10])];
  const telling = filter((value) => {
    seen.add();
    size.observe(value);
    log.info('a row', { value });
    return true;
  });
  const out = run(telling, ['1', '2']);
  assert.deepEqual([out.counters, out.histograms], [{ seen: 2 }, { size: [1, 2] }]);
  assert.deepEqual(out.log, [['info', 'a row value=1'], ['info', 'a row value=2']]);
});

test('metrics of one name are one, and odd names none', () => {
  const [first, second] = [new Counter('twice'), new Counter('twice')];
  const telling = filter(() => {
    first.add();
    second.add(10);
    return true;
  });
  assert.deepEqual(run(telling, ['1', '2']).counters, { twice: 22 });
  for (const name of ['Odd', '1st', 'a-b', '', 'a'.repeat(65), 'a\n']) {
    assert.throws(() => new Sink().counter(name), { code: 'metric' });
  }
  const counter = () => {
    throw { code: 'metric', message: 'no' };
  };
  assert.throws(() => register({ counter, histogram: counter }, () => { throw new Failure('metric', 'no'); }), Failure);
});

test('what is told while a case is timed does not count', () => {
  const seen = new Counter('seen');
  const telling = filter(() => {
    seen.add();
    return true;
  });
  const folder = mkdtempSync(join(tmpdir(), 'rustmq-'));
  Object.assign(process.env, { RUSTMQ_CASES: join(folder, 'cases'), RUSTMQ_BENCH: '1' });
  try {
    assert.deepEqual(run(telling, ['1']).counters, { seen: 1 });
    assert.ok(JSON.parse(readFileSync(join(folder, 'cases'), 'utf8')).native_ns > 0);
  } finally {
    delete process.env.RUSTMQ_CASES;
    delete process.env.RUSTMQ_BENCH;
    rmSync(folder, { recursive: true });
  }
});

test('functions that cannot be modules', () => {
  assert.throws(() => map('no function'), TypeError);
  assert.throws(() => map(() => 1, { valeu: 'text' }), /option valeu/);
  assert.throws(() => map(() => 1, { value: 'xml' }), /; not "xml"/);
  assert.throws(() => route([], () => 'a'), /name the outputs/);
  assert.throws(() => run(same, [], { outputs: [] }), Failure);
});

test('what comes of an answer to a request', () => {
  const asked = [];
  http((request) => {
    asked.push(request);
    const path = request.url.split('/').at(-1);
    if (path === 'denied') throw trouble('denied', 'not granted');
    if (path === 'late') throw trouble('timeout', 'no answer');
    if (path === 'busy') return new Response(503, '', { headers: { 'retry-after': '7' } });
    return path === '9' ? new Response(404) : new Response(200, '{"name":"tea"}');
  });
  const url = (order) => `https://products.example/${order}`;
  const named = map((order) => get(url(order), { headers: { accept: 'a' } }).ok().json().name);
  assert.deepEqual(run(named, [1]).json(), ['tea']);
  assert.deepEqual([asked[0].method, asked[0].headers], ['GET', { accept: 'a' }]);
  const { rejects, retries } = run(named, [9, '"denied"', '"late"']);
  assert.deepEqual(rejects.map(({ code }) => code), ['http-404', 'http-denied']);
  assert.deepEqual(retries, [{ row: 2, code: 'http-timeout', message: 'no answer' }]);
  assert.equal(run(named, ['"busy"']).retries[0].code, 'http-503');
  assert.throws(() => new Response(429, '', { headers: { 'retry-after': '7' } }).ok(), { afterMs: 7000 });
  assert.throws(() => new Response(200, '<html>').json(), { code: 'http-json' });
  const [tea, none] = send([{ url: url(1), body: 'b', method: 'POST' }, { url: url('denied') }]);
  assert.deepEqual([tea.status, tea.url, none.trouble], [200, url(1), 'denied']);
  post(url(1), { json: { a: 1 } });
  assert.equal(text(asked.at(-1).body), '{"a":1}');
});

test('meta is given, however the function says its parameters', () => {
  const key = (value, meta) => meta.key?.length ?? null;
  const functions = [key, (value, meta = {}) => key(value, meta), (...all) => key(...all), (value, { key: k } = {}) => k?.length];
  for (const each of functions) assert.deepEqual(run(map(each), [new Row(1, { key: 'abc' })]).json(), [3]);
});

test('in a bundle the line is found', () => {
  globalThis.rustmqLines = [[10, 3, 'helper.js', 4], [20, 1, 'module.js', 7]];
  try {
    const error = new TypeError('x');
    for (const [stack, place] of [
      ['read@module.js:5:1\ndeep/<@module.js:12:7\n', ' (helper.js, line 6)'],
      ['deep@module.js:20:7\n', ' (module.js, line 7, in deep)'],
      ['run@module.js:21:7\n@x.js:1:1', ''],
    ]) {
      error.stack = stack;
      assert.equal(said(error), `TypeError: x${place}`);
    }
  } finally {
    delete globalThis.rustmqLines;
  }
});
