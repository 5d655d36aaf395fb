/** The component's exports: `rustmq module build` bundles this file with `module.js`. */

import * as packed from 'rustmq:etl/packed@0.1.3';
import * as telemetry from 'rustmq:etl/telemetry@0.1.3';
import theModule from 'rustmq-module';
import { Batch, Outbox } from './batch.js';
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

export const module = {
  open(ctx) {
    guarded(() => {
      register(telemetry);
      theModule.open(ctx.params(), ctx.outputs());
    });
  },
  process(rows, out) {
    guarded(() => run(theModule, new Batch(packed, rows), new Outbox(packed, out)));
  },
};
