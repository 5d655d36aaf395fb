/**
 * Bundles a module with the SDK and makes a component of it.
 *
 * `node build.mjs MODULE SDK WIT [OUT]`: `rustmq module build` puts this file beside the tools it needs
 * and calls it. Prints one line of JSON, what the module says of itself and the digest of its bundle; errors
 * go to standard error. Without OUT no component is made.
 */

import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

const [main, sdk, wit, out] = process.argv.slice(2);
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const NO_MODULE = `${main} exports no module: write \`export default map((value) => …)\``;

try {
  const work = await mkdtemp(join(tmpdir(), 'rustmq-js-'));
  try {
    const bundled = join(work, 'module.js');
    let imports = await bundle(bundled, false); // first, since its errors show the line
    const described = await describe();
    if (described.state_schema != null) imports = await bundle(bundled, true);
    if (out != null) await componentize(bundled, worldOf(described, imports));
    const digest = createHash('sha256').update(await readFile(bundled)).digest('hex');
    console.log(JSON.stringify({ ...described, bundle: digest }));
  } finally {
    await rm(work, { recursive: true });
  }
} catch (error) {
  console.error(error?.message ?? String(error));
  process.exitCode = 1;
}

/**
 * The smallest world that has all that it uses: the component imports and exports all of it. An older SDK knows
 * nothing of state.
 */
function worldOf({ state_schema: schema, migrates }, imports) {
  const granted = imports.some((name) => name.startsWith('rustmq:etl/http@'));
  if (schema == null) return granted ? 'granted' : 'transform';
  const keeps = migrates == null ? 'stateful' : 'migrating';
  return granted ? `${keeps}-granted` : keeps;
}

/** Loads the module natively, and asks what it says of itself. */
async function describe() {
  const { Module } = await import(pathToFileURL(join(sdk, 'module.js')));
  let loaded;
  try {
    loaded = await import(pathToFileURL(main));
  } catch (error) {
    throw new Error(error?.stack ?? String(error));
  }
  if (!(loaded.default instanceof Module)) throw new Error(NO_MODULE);
  return loaded.default.described;
}

/** Answers with what the bundle imports of the host, of its state only if it keeps some. */
async function bundle(bundled, keepsState) {
  const { rolldown } = await import('rolldown');
  const made = await rolldown({
    input: join(sdk, 'component.js'),
    external: /^rustmq:/,
    platform: 'neutral',
    resolve: {
      alias: {
        'rustmq-module': main,
        '#http-host': join(sdk, 'http_component.js'),
        '#state-host': join(sdk, keepsState ? 'state_component.js' : 'state_host.js'),
      },
      mainFields: ['module', 'main'],
    },
  });
  const { output } = await made.write({ file: bundled, format: 'esm', sourcemap: 'hidden' }).catch((error) => {
    // the SDK's own import of what the module does not export
    const errors = error?.errors ?? [];
    const missing = errors.some((e) => e.code === 'MISSING_EXPORT' && e.message.includes('rustmq-module'));
    throw missing ? new Error(NO_MODULE) : error;
  });
  const { map } = output.find(({ type }) => type === 'chunk');
  await appendFile(bundled, `\nglobalThis.rustmqLines = ${JSON.stringify(linesOf(map, dirname(bundled)))};\n`);
  return output.flatMap((chunk) => chunk.imports ?? []);
}

/**
 * Which lines of the bundle are of which file, but for the SDK's: the first one, how many, the file's name, the line
 * of the first there. `place.js` looks errors up in it.
 */
function linesOf({ sources, mappings }, from) {
  const files = sources.map((source) => resolve(from, source));
  const isOwn = files.map((file) => file.startsWith(resolve(sdk) + sep));
  const parts = [];
  let [source, line] = [0, 0];
  mappings.split(';').forEach((segments, at) => {
    let first = null;
    for (const [, file = 0, down = 0] of segments.split(',').filter(Boolean).map(numbersOf)) {
      source += file;
      line += down;
      first ??= [source, line];
    }
    if (first === null || isOwn[first[0]]) return;
    const [name, there, last] = [basename(files[first[0]]), first[1] + 1, parts.at(-1)];
    const goesOn = last?.[2] === name && last[0] + last[1] === at + 1 && last[3] + last[1] === there;
    if (goesOn) last[1] += 1;
    else parts.push([at + 1, 1, name, there]);
  });
  return parts;
}

/** The numbers of a segment of a source map: base 64, five bits a digit, the lowest bit of each number its sign. */
function numbersOf(segment) {
  const numbers = [];
  let [number, shift] = [0, 0];
  for (const letter of segment) {
    const digit = DIGITS.indexOf(letter);
    number += (digit & 31) << shift;
    shift += 5;
    if (digit >= 32) continue;
    numbers.push(number & 1 ? -(number >> 1) : number >> 1);
    [number, shift] = [0, 0];
  }
  return numbers;
}

async function componentize(bundled, worldName) {
  const tool = await import('@bytecodealliance/componentize-js');
  const { component } = await tool.componentize({
    sourcePath: bundled,
    witPath: wit,
    worldName,
    disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(out, component);
}
