/** The component's exports: `rustmq module build` bundles this file with `module.js`. */

import { declare, getBools, select, setBools } from 'rustmq:etl/columns@0.1.5';
import { table } from 'rustmq:etl/lookup@0.1.5';
import * as packed from 'rustmq:etl/packed@0.1.5';
import * as telemetry from 'rustmq:etl/telemetry@0.1.5';
import { kept } from '#state-host';
import './console.js';
import theModule from 'rustmq-module';
import { register as registerLookups } from './lookup.js';
import { Failure, migrate, run } from './module.js';
import { said } from './place.js';
import { register } from './telemetry.js';

/** What is thrown here must be the contract's `failure`. */
function guarded(work) {
  try {
    work();
  } catch (error) {
    if (error instanceof Failure) throw { code: error.code, message: error.message };
    throw { code: 'error', message: said(error) };
  }
}

/** What the host says against it is a failure. */
function asked(ask) {
  try {
    return ask();
  } catch (error) {
    const { code, message } = error?.payload ?? error;
    throw new Failure(code, message);
  }
}

/** `packed`, and of `columns` what has no numbers to pack. */
const host = { ...packed, getBools, setBools };

/** What the node declares, and what the module says of its columns. */
class Context {
  #handle;

  constructor(handle) {
    this.#handle = handle;
  }

  params() {
    return this.#handle.params();
  }

  inputs() {
    return this.#handle.inputs();
  }

  outputs() {
    return this.#handle.outputs();
  }

  select(input, fields) {
    asked(() => select(this.#handle, input, fields.map(({ name, kind }) => ({ name, kind }))));
  }

  declare(port, fields) {
    asked(() => declare(this.#handle, port, fields.map(({ name, kind }) => ({ name, kind }))));
  }
}

export const module = {
  open(ctx) {
    guarded(() => {
      register(telemetry, asked);
      registerLookups(packed, (name) => asked(() => table(name)));
      theModule.open(new Context(ctx));
    });
  },
  process(rows, out) {
    guarded(() => run(theModule, host, rows, out, kept));
  },
};

/** Of the worlds with state. */
export const timed = {
  onTimers(fired, out) {
    guarded(() => run(theModule, host, fired, out, kept, true));
  },
};

/** Of those whose state has had another schema. */
export const migration = {
  migrate(schema, old) {
    guarded(() => migrate(theModule, kept, schema, kept.entries(old)));
  },
};
