/**
 * `console`, for a component: what it writes goes to the server's log. `component.js` imports it before the module,
 * which may keep it; the engine's own writes to nowhere.
 */

import { log } from './telemetry.js';

/** Letters of a line; the host cuts it there anyway. */
const LINE = 1024;

function shown(value) {
  if (typeof value !== 'object' || value instanceof Error) return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** Writes what it is given as lines of that level. */
function writes(level) {
  return (...values) => {
    if (!log.enabled(level)) return;
    for (const line of values.map(shown).join(' ').split('\n')) {
      if (line !== '') log[level](line.slice(0, LINE));
    }
  };
}

const lines = {
  log: 'info', info: 'info', dir: 'info', table: 'info', group: 'info', debug: 'debug', trace: 'trace', warn: 'warn',
  error: 'error',
};

const written = Object.fromEntries(Object.entries(lines).map(([name, level]) => [name, writes(level)]));

/** What writes nothing is the engine's own. */
export const console = Object.assign(Object.create(globalThis.console), written, {
  assert(holds, ...values) {
    if (!holds) written.error('Assertion failed:', ...values);
  },
});

globalThis.console = console;
