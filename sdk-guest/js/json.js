/** Values as JSON, strictly. */

import { Reject, settled } from './record.js';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A value as JSON; refuses what cannot be written. */
export function written(value) {
  settled(value);
  let json;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    throw new Reject('encode', error.message);
  }
  if (json === undefined) throw new Reject('encode', `a ${typeof value} cannot be written as JSON`);
  return json;
}

/** A value of text, or bytes, that was found somewhere; refuses with that code where it is no JSON. */
export function read(found, code, what) {
  try {
    return JSON.parse(typeof found === 'string' ? found : decoder.decode(found));
  } catch (error) {
    throw new Reject(code, `${what} is no JSON: ${error.message}`);
  }
}
