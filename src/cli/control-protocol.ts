// What is said over the socket of `grantio run --control`: one JSON document a line, a request each way an answer.
// Used by control-socket.ts, which answers, and ctl.ts, which asks.

/** Longest line, in bytes, either way. */
export const MAX_LINE = 64 * 1024;

/** What can be asked. */
export type ControlRequest =
  | { readonly plug: { readonly path: string; readonly readOnly: boolean } }
  | { readonly plug: 'entropy' }
  | { readonly unplug: string }
  | { readonly list: true };

/** A device in an answer. */
export interface ControlDevice {
  readonly dev: string;
  readonly kind: 'disk' | 'entropy' | 'console';
  readonly path?: string;
  readonly readOnly?: boolean;
  readonly uris: readonly string[];
}

/** What is answered. */
export type ControlAnswer =
  | { readonly plugged: ControlDevice }
  /** `orderly` is false where the device was taken from an end that did not let go in time. */
  | { readonly unplugged: { readonly dev: string; readonly orderly: boolean } }
  | { readonly devices: readonly ControlDevice[] }
  | { readonly error: string };

const EXPECTED = 'expected {"plug":{"path":"b.img"}}, {"plug":"entropy"}, {"unplug":"xvdb"} or {"list":true}';

/** Reads a request. Throws RangeError, which says what is wrong, for anything else. */
export function parseRequest(line: string): ControlRequest {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new RangeError(`no JSON: ${(error as Error).message}; ${EXPECTED}`);
  }
  const request = fieldsOf(value, 'the request', ['plug', 'unplug', 'list']);
  if (Object.keys(request).length !== 1)
    throw new RangeError(`a request says one thing, this one ${Object.keys(request).length}; ${EXPECTED}`);
  const { plug, unplug, list } = request;
  if (list === true) return { list };
  if (typeof unplug === 'string') return { unplug };
  if (plug === 'entropy') return { plug };
  if (plug === undefined) throw new RangeError(`the request has a value that makes no sense; ${EXPECTED}`);
  const { path, readOnly = false } = fieldsOf(plug, 'plug', ['path', 'readOnly']);
  if (typeof path !== 'string' || path === '' || path.includes('\0'))
    throw new RangeError('plug: path is to be the path of an image');
  if (typeof readOnly !== 'boolean') throw new RangeError('plug: readOnly is to be true or false');
  return { plug: { path, readOnly } };
}

/** The fields of an object that has none but these. */
function fieldsOf(value: unknown, what: string, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new RangeError(`${what} is no object; ${EXPECTED}`);
  for (const key of Object.keys(value))
    if (!known.includes(key))
      throw new RangeError(
        `${what} has an unknown key ${JSON.stringify(key)}; known are ${known.join(', ')}`,
      );
  return value as Readonly<Record<string, unknown>>;
}

/** Cuts a stream of text into lines. */
export class LineReader {
  #text = '';

  /** Takes what has come. Returns false when a line is too long: nothing more can be read then. */
  add(chunk: string): boolean {
    this.#text += chunk;
    return this.#text.split('\n').every((line) => Buffer.byteLength(line) <= MAX_LINE);
  }

  /** The lines that are complete now. */
  take(): string[] {
    const lines = this.#text.split('\n');
    this.#text = lines.pop()!;
    return lines;
  }
}
