/**
 * What a module keeps from batch to batch: bytes under bytes, a set of them for each lane of a node.
 *
 * `host` is `packed-state` of the component's imports, or what `testing` puts in its place. What a call reads
 * is fetched once; what it changes is told once, at its end, and counts only if the call ends well. What a refused
 * row changed is taken back.
 */

import { Column } from './batch.js';
import { read, written } from './json.js';
import { Reject, asBytes, micros } from './record.js';

/** Entries that one call of the host is asked for, at most. */
const SCAN_ENTRIES = 1000;
const LETTERS = 4096;
const ASCII = /^[\0-\x7f]*$/;
const encoder = new TextEncoder();

/** A key as a string of a letter for each of its bytes, which sorts as they do: what maps have for a key. */
export function nameOf(key) {
  if (key === null || key === undefined) throw new Reject('key', 'there is no key to keep something under');
  if (typeof key === 'string' && ASCII.test(key)) return key;
  const bytes = asBytes(key);
  if (bytes.length <= LETTERS) return String.fromCharCode.apply(null, bytes);
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
}

/** The bytes of such a string. */
export function bytesOf(name) {
  return ASCII.test(name) ? encoder.encode(name) : Uint8Array.from(name, (letter) => letter.charCodeAt(0));
}

function columnOf(names) {
  return Column.ofTexts(ASCII.test(names.join('')) ? names : names.map(bytesOf));
}

/**
 * What is kept, during one call. Keys are bytes or text; values JSON, or bytes by the methods that say so.
 *
 * The lane's partition has all records of a key, so that what is kept under a record's key is seen by all of them.
 */
export class State {
  #host;
  /** By the name of a key: what the host has there, and what it is to be told; bytes or text. */
  #found = new Map();
  #changes = new Map();
  /** By time and name. */
  #timers = new Map();
  /** What the row at work changed: map, name, what was there. Nothing where no rows are told apart. */
  #undo = null;

  constructor(host) {
    this.#host = host;
  }

  /** What was put at a key; `null` where nothing stands. */
  get(key) {
    const found = this.#at(nameOf(key));
    return found === null ? null : read(found, 'state', 'what is kept');
  }

  /** Puts a value, as JSON. */
  put(key, value) {
    if (value instanceof Uint8Array) throw new TypeError('bytes are put with `putBytes`');
    this.#change(this.#changes, nameOf(key), written(value));
  }

  /** The bytes at a key; `null` where nothing stands. */
  getBytes(key) {
    return asBytes(this.#at(nameOf(key)));
  }

  /** Puts bytes, or text. */
  putBytes(key, value) {
    if (value === null) throw new TypeError('nothing cannot be put: `delete` takes an entry out');
    this.#change(this.#changes, nameOf(key), typeof value === 'string' ? value : asBytes(value));
  }

  delete(key) {
    this.#change(this.#changes, nameOf(key), null);
  }

  /**
   * Reads what stands at many keys (an array, or a `Column`) with one call of the host, so that `get` has it at
   * hand. For the keys of a batch it is done already where a function works row by row.
   */
  fetch(keys) {
    const wanted = new Set();
    const column = keys instanceof Column ? keys : Column.ofTexts(Array.from(keys));
    const letters = column.letters() ?? ((row) => nameOf(column.get(row)));
    for (let row = 0; row < column.length; row++) {
      if (!column.has(row)) continue;
      const name = letters(row);
      if (!this.#found.has(name)) wanted.add(name);
    }
    if (wanted.size > 0) this.#look([...wanted]);
  }

  /**
   * Entries whose keys begin with `prefix` and come behind `after`, in the order of their bytes, at most `limit`:
   * an array of pairs of key, as bytes, and value.
   */
  scan(prefix = '', options = {}) {
    return this.#scan(prefix, options).map(([key, value]) => [key, read(value, 'state', 'what is kept')]);
  }

  /** The same with values as bytes. */
  scanBytes(prefix = '', options = {}) {
    return this.#scan(prefix, options).map(([key, value]) => [key, asBytes(value)]);
  }

  #scan(prefix, { after = null, limit = Infinity }) {
    const begin = nameOf(prefix);
    let behind = after === null ? null : nameOf(after);
    const own = [...this.#changes.keys()]
      .filter((name) => name.startsWith(begin) && (behind === null || name > behind))
      .sort();
    const [found, from] = [[], bytesOf(begin)];
    while (found.length < limit) {
      const wanted = Math.min(SCAN_ENTRIES, limit - found.length);
      const [keys, values] = this.#host.scan(from, behind === null ? undefined : bytesOf(behind), wanted);
      const page = new Map();
      for (let i = 0; i < keys.length; i++) page.set(nameOf(keys.get(i)), values.get(i));
      behind = keys.length > 0 ? nameOf(keys.get(keys.length - 1)) : null;
      while (own.length > 0 && (behind === null || own[0] <= behind)) {
        const name = own.shift();
        page.set(name, this.#changes.get(name));
      }
      for (const name of [...page.keys()].sort()) {
        if (page.get(name) !== null) found.push([bytesOf(name), page.get(name)]);
      }
      if (behind === null) break;
    }
    return found.slice(0, limit);
  }

  /**
   * A timer of a key, which fires once the watermark has passed `time`: microseconds since the epoch, UTC. A key may
   * have several; one that was set already is not set twice.
   */
  setTimer(key, time) {
    this.#timer(key, time, true);
  }

  clearTimer(key, time) {
    this.#timer(key, time, false);
  }

  #timer(key, time, on) {
    const timer = { name: nameOf(key), time: micros(time), on };
    this.#change(this.#timers, `${timer.time} ${timer.name}`, timer);
  }

  #at(name) {
    const changed = this.#changes.get(name);
    if (changed !== undefined) return changed;
    if (!this.#found.has(name)) this.#look([name]);
    return this.#found.get(name);
  }

  #look(names) {
    const values = this.#host.get(columnOf(names));
    const letters = values.letters() ?? ((i) => values.get(i));
    for (let i = 0; i < names.length; i++) this.#found.set(names[i], values.has(i) ? letters(i) : null);
  }

  #change(map, name, value) {
    this.#undo?.push(map, name, map.get(name));
    map.set(name, value);
  }

  /** A row begins: what it changes can be taken back. */
  beginRow() {
    if (this.#undo === null) this.#undo = [];
    else this.#undo.length = 0;
  }

  /** The row is not taken: nor is what it changed. */
  undoRow() {
    const undo = this.#undo ?? [];
    for (let at = undo.length - 3; at >= 0; at -= 3) {
      const [map, name, before] = undo.slice(at, at + 3);
      if (before === undefined) map.delete(name);
      else map.set(name, before);
    }
    undo.length = 0;
  }

  /** Tells the host all that changed. */
  tell() {
    if (this.#changes.size > 0) {
      this.#host.put(columnOf([...this.#changes.keys()]), Column.ofTexts([...this.#changes.values()]));
    }
    for (const on of [true, false]) {
      const timers = [...this.#timers.values()].filter((timer) => timer.on === on);
      if (timers.length > 0) {
        const times = BigInt64Array.from(timers, ({ time }) => time);
        this.#host.timers(columnOf(timers.map(({ name }) => name)), times, on);
      }
    }
  }
}
