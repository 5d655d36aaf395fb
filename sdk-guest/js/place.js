/**
 * What an error says, and where in the author's code it was thrown: the first frame that is none of the SDK's.
 *
 * A component is one bundle; `tools/build.mjs` puts `rustmqLines` behind it, which says what of it is of which line of
 * which file. Natively files tell themselves apart.
 */

/** A frame of V8 ("at name (file:1:2)"), or of SpiderMonkey ("name@file:1:2"). */
const FRAME = /^(?:at (?:(?<name>.*?) \()?|(?<called>.*?)@)(?<file>[^()]+?):(?<line>\d+):\d+\)?$/;

/** The SDK's folder. */
const own = framesOf(new Error('here'))[0]?.file.replace(/[^/]*$/, '');

/** An error as text, with its place. */
export function said(error) {
  try {
    return `${error}${placeOf(error)}`;
  } catch {
    return 'what was thrown cannot be said';
  }
}

function framesOf(error) {
  const lines = typeof error?.stack === 'string' ? error.stack.split('\n') : [];
  const frames = lines.map((line) => FRAME.exec(line.trim())?.groups).filter((found) => found !== undefined);
  return frames.map(({ name, called, file, line }) => ({ name: name ?? called, file, line: Number(line) }));
}

function placeOf(error) {
  for (const frame of framesOf(error)) {
    const found = globalThis.rustmqLines === undefined ? native(frame) : bundled(frame, globalThis.rustmqLines);
    if (found === null) continue;
    const within = /^[\w$.]+$/.test(frame.name ?? '') ? `, in ${frame.name}` : '';
    return ` (${found.file}, line ${found.line}${within})`;
  }
  return '';
}

function native({ file, line }) {
  if (file.startsWith('node:') || file === '<anonymous>') return null;
  const isOwn = file.startsWith(own) && !file.slice(own.length).includes('/');
  return isOwn ? null : { file: file.split('/').at(-1), line };
}

/** `parts` are lines of the bundle in order: the first one, how many, the file, the line of the first there. */
function bundled({ line }, parts) {
  const part = parts.find(([first, count]) => line >= first && line < first + count);
  return part === undefined ? null : { file: part[2], line: part[3] + line - part[0] };
}
