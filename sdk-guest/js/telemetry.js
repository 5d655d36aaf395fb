/** What a module tells about itself. Numbers are collected during a call and told once, at its end. */

/** The largest number below 2^64. */
const COUNT_MAX = 2 ** 64 - 2 ** 11;

const metrics = [];
let sink = null;

function line(level) {
  return (message, values = {}) => {
    if (sink?.enabled(level)) {
      sink.log(level, String(message), Object.entries(values).flat().map(String));
    }
  };
}

/** `log.info('text', { name: value })`; levels: trace, debug, info, warn, error. */
export const log = Object.freeze({
  trace: line('trace'),
  debug: line('debug'),
  info: line('info'),
  warn: line('warn'),
  error: line('error'),
  enabled: (level) => sink?.enabled(level) ?? false,
});

/** A number that only grows, summed up over all lanes. Made at the top of `module.js`. */
export class Counter {
  told = 0;

  constructor(name) {
    this.name = name;
    metrics.push(this);
  }

  add(amount = 1) {
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw new RangeError(`a counter takes whole numbers from 0 on, not ${String(amount)}`);
    }
    this.told += amount;
  }
}

/** The spread of many values. `bounds` are the buckets' upper ones, ascending. */
export class Histogram {
  told = [];

  constructor(name, bounds) {
    this.name = name;
    this.bounds = bounds;
    metrics.push(this);
  }

  observe(value) {
    if (typeof value !== 'number') throw new TypeError(`a histogram takes numbers, not a ${typeof value}`);
    this.told.push(value);
  }
}

/** At `open`: asks for an id for each metric; `asked` makes what the host says against one a failure. */
export function register(host, asked = (ask) => ask()) {
  sink = host;
  for (const metric of metrics) {
    metric.id = asked(() => (metric instanceof Counter
      ? sink.counter(metric.name)
      : sink.histogram(metric.name, metric.bounds)));
  }
  begin();
}

/** What a call that failed left behind does not count. */
export function begin() {
  for (const metric of metrics) metric.told = metric instanceof Counter ? 0 : [];
}

export function tell() {
  const counters = metrics.filter((m) => m instanceof Counter && m.told > 0);
  if (counters.length > 0) {
    sink.add(counters.map((c) => c.id), counters.map((c) => BigInt(Math.min(c.told, COUNT_MAX))));
  }
  for (const metric of metrics) {
    if (metric instanceof Histogram && metric.told.length > 0) sink.observe(metric.id, metric.told);
  }
  begin();
}
