/** The component's exports: `rustmq module build` bundles this file with `module.js`. */

import { table } from 'rustmq:etl/lookup@0.1.4';
import * as packed from 'rustmq:etl/packed@0.1.4';
import * as telemetry from 'rustmq:etl/telemetry@0.1.4';
import theModule from 'rustmq-module';
import { Batch, Outbox } from './batch.js';
import { register as registerLookups } from './lookup.js';
import { Failure, run } from './module.js';
import { register } from './telemetry.js';

/** What is thrown here must be the contract's `failure`. */
function guarded(work) {
  try {
    work();
  } catch (error) {
    const code = error instanceof Failure ? error.code : 'error';
    throw { code, message: error instanceof Failure ? error.message : String(error?.message ?? error) };
  }
}

/** The number of a table; what the host says against it is a failure. */
function known(name) {
  try {
    return table(name);
  } catch (error) {
    const { code, message } = error?.payload ?? error;
    throw new Failure(code, message);
  }
}

export const module = {
  open(ctx) {
    guarded(() => {
      register(telemetry);
      registerLookups(packed, known);
      theModule.open(ctx.params(), ctx.outputs());
    });
  },
  process(rows, out) {
    guarded(() => run(theModule, new Batch(packed, rows), new Outbox(packed, out)));
  },
};
