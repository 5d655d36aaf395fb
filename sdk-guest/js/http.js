/**
 * Requests to other services: the host makes them, where the node grants it.
 *
 *     import { get } from '#rustmq/http';
 *
 *     export default map((order) => {
 *       const product = get(`https://products.example/v1/${order.sku}`).ok().json();
 *       return { sku: order.sku, name: product.name };
 *     });
 *
 * `send` makes those of a batch together. A batch may be worked again, and makes its requests again.
 * Nothing here is a promise: functions of a module are not `async`.
 */

import { send as ask } from '#http-host';
import { Reject, Retry, asBytes, milliseconds } from './record.js';

/** Troubles that may pass. The others: invalid, denied, tls, too-large, redirect. */
export const PASSING = Object.freeze(['rate', 'resolve', 'connect', 'timeout', 'protocol', 'other']);

const RETRY_MS = 1000;
const decoder = new TextDecoder();

/** An answer, of any status. `headers` is a `Map`, names in lower case; the last of a name counts. */
export class Response {
  constructor(status, body = '', { headers = {}, url = '' } = {}) {
    this.status = status;
    this.body = asBytes(body);
    this.headers = headers instanceof Map ? headers : new Map(Object.entries(headers));
    this.url = url;
  }

  text() {
    return decoder.decode(this.body);
  }

  /** The body read from JSON; what is none refuses the row, with the code `http-json`. */
  json() {
    try {
      return JSON.parse(this.text());
    } catch (error) {
      throw new Reject('http-json', `the answer is not as expected: ${error.message}`);
    }
  }

  /** Itself, if its status is 2xx; 429 and 5xx ask for the row again later, all else refuses it. */
  ok() {
    if (this.status >= 200 && this.status < 300) return this;
    const [code, message] = [`http-${this.status}`, `the answer has status ${this.status}`];
    if (this.status !== 429 && this.status < 500) throw new Reject(code, message);
    const after = this.headers.get('retry-after') ?? '';
    throw new Retry(/^\d+$/.test(after) ? Number(after) * 1000 : RETRY_MS, code, message);
  }
}

/** No answer: a `Reject`, or a `Retry` where the trouble may pass, with the `trouble` beside it. */
export function trouble(name, message) {
  const code = `http-${name}`;
  const error = PASSING.includes(name) ? new Retry(RETRY_MS, code, message) : new Reject(code, message);
  return Object.assign(error, { trouble: name });
}

/**
 * Makes many requests, several at a time: `{ method, url, headers, body, timeoutMs }`, of which only the
 * URL must be there. For each, in their order, a `Response`, or what `trouble` makes.
 */
export function send(requests) {
  return ask(requests.map(({ method = 'GET', url, headers = {}, body, timeoutMs }) => ({
    method,
    url,
    headers: Object.entries(headers).map(([name, value]) => ({ name, value: String(value) })),
    body: body === undefined || body === null ? undefined : asBytes(body),
    timeoutMs: timeoutMs === undefined || timeoutMs === null ? undefined : milliseconds(timeoutMs),
  }))).map(answered);
}

function answered({ tag, val }) {
  if (tag === 'err') return trouble(val.code, val.message);
  const headers = new Map(val.headers.map(({ name, value }) => [name, value]));
  // an array of our own: what comes in is of another realm, and no `instanceof Uint8Array`
  return new Response(val.status, new Uint8Array(val.body), { headers, url: val.url });
}

/** The answer, of any status. Throws what `trouble` makes where there is none. */
export function request(method, url, { json, headers = {}, body, ...rest } = {}) {
  const typed = json === undefined ? headers : { 'content-type': 'application/json', ...headers };
  const text = json === undefined ? body : JSON.stringify(json);
  const [answer] = send([{ method, url, headers: typed, body: text, ...rest }]);
  if (!(answer instanceof Response)) throw answer;
  return answer;
}

export const get = (url, rest) => request('GET', url, rest);
export const post = (url, rest) => request('POST', url, rest);
