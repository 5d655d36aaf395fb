/** Tables of the node's `lookups`: the newest value of every key of a topic. */

import { Column } from './batch.js';
import { read } from './json.js';
import { Reject, asBytes } from './record.js';

const tables = [];

/** Where it looks: the component's `packed`, or a test's. */
let host = null;

/**
 * A table that the node declares. Made at the top of `module.js`: `const users = new Lookup('users')`.
 *
 * While a batch is worked on it does not change. Each call leaves JavaScript: ask for many keys at once
 * where there are many.
 */
export class Lookup {
  #number = null;

  constructor(name) {
    this.name = name;
    tables.push((table) => {
      this.#number = table(name);
    });
  }

  /** What stands at a key (bytes or text), read from JSON; `null` where nothing does. */
  get(key) {
    const value = this.getBytes(key);
    return value === null ? null : read(value, 'lookup', 'what was found');
  }

  getBytes(key) {
    return this.getAll([key]).get(0);
  }

  /** The values of many keys, as a `Column`: nothing where there is no such key, or for `null`. */
  getAll(keys) {
    if (this.#number === null) {
      throw new Reject('lookup', `no table ${this.name}: give it in \`lookups\`, make it before the module opens`);
    }
    const column = keys instanceof Column ? keys : Column.of(Array.from(keys, asBytes));
    return Column.unpack(host.lookup(this.#number, column.pack()));
  }
}

/** At `open`: asks for the number of each table, and throws where the node declares none. */
export function register(where, table) {
  host = where;
  for (const known of tables) known(table);
}
