// Stacks of calls, numbered: where in a driver a mapping was made. Used by dma-debug.ts.
//
// Taking one costs far more than a mapping. So stacks are told apart by the positions in their code, and only
// one that is new is put into words.

/** Frames that are kept of a stack, those in this folder not counted. */
const FRAMES = 6;
/** Frames that are taken: some of them are in this folder. */
const DEPTH = FRAMES + 3;
/** Stacks that are told apart; a program has far fewer places that map. */
const MAX_STACKS = 4096;
/** The number of a stack beyond that. */
const UNKNOWN = 0;

/** Where the compiled sources are, and the sources themselves: no path of the machine gets into a stack. */
const COMPILED = pathname(new URL('../../', import.meta.url).href);
const SOURCES = COMPILED.replace(/dist\/$/, '');
const FRAME = /^\s*at (?:(.+) \()?(.+):(\d+):(\d+)\)?$/;
/** This folder, without its tests. */
const OF_DMA = /^src\/dma\/(?!.*\.test\.)/;

/** A frame as V8 hands it over. */
interface CallSite {
  getScriptNameOrSourceURL(): string | null;
  getPosition(): number;
}

/** The part of V8's Error that takes stacks (v8.dev/docs/stack-trace-api). */
interface StackTaker {
  stackTraceLimit: number;
  captureStackTrace(target: object, below: unknown): void;
  prepareStackTrace?: ((error: unknown, sites: readonly CallSite[]) => unknown) | undefined;
}

const taker = Error as unknown as StackTaker;

function positions(_error: unknown, sites: readonly CallSite[]): string {
  let key = '';
  for (const site of sites) key += `${site.getScriptNameOrSourceURL()}:${site.getPosition()} `;
  return key;
}

/** The stack above `below`, as `prepare` puts it; undefined: as the engine does. */
function take(below: unknown, prepare: StackTaker['prepareStackTrace']): string {
  const { stackTraceLimit, prepareStackTrace } = taker;
  const target = { stack: '' };
  try {
    taker.stackTraceLimit = DEPTH;
    taker.prepareStackTrace = prepare;
    taker.captureStackTrace(target, below);
    // Made at the first look, so the look has to be here.
    return target.stack;
  } finally {
    taker.stackTraceLimit = stackTraceLimit;
    taker.prepareStackTrace = prepareStackTrace;
  }
}

/** One frame as `function (src/folder/file.ts:line:column)`; undefined for the engine's own. */
function frameOf(line: string): string | undefined {
  const match = FRAME.exec(line);
  if (match === null || match[2].startsWith('node:')) return undefined;
  const [, name, script, row, column] = match;
  const place = `${relative(pathname(script.replace(/^async /, '')))}:${row}:${column}`;
  return name === undefined ? place : `${name} (${place})`;
}

/** With a source map the engine names a source by its path, without one a script by its URL. */
function pathname(script: string): string {
  return script.startsWith('file:') ? decodeURI(new URL(script).pathname) : script;
}

function relative(path: string): string {
  for (const base of [COMPILED, SOURCES]) if (path.startsWith(base)) return path.slice(base.length);
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1);
}

function textOf(stack: string): string {
  const frames = stack
    .split('\n')
    .map(frameOf)
    .filter((frame) => frame !== undefined);
  const first = frames.findIndex((frame) => !OF_DMA.test(frame.slice(frame.lastIndexOf('(') + 1)));
  return frames.slice(Math.max(first, 0), Math.max(first, 0) + FRAMES).join('\n');
}

/** The stacks that were taken, by number. */
export class CallStacks {
  readonly #numbers = new Map<string, number>();
  readonly #texts = new Map<number, string>([[UNKNOWN, '']]);

  /** Numbers the stack of calls that has led into this folder. */
  take(): number {
    const key = take(this.take, positions);
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    if (this.#numbers.size === MAX_STACKS) return UNKNOWN;
    const number = this.#numbers.size + 1;
    this.#numbers.set(key, number);
    this.#texts.set(number, textOf(take(this.take, undefined)));
    return number;
  }

  /** Frames of a stack, the innermost first. */
  framesOf(number: number): string[] {
    const text = this.#texts.get(number);
    return text ? text.split('\n') : [];
  }

  /** All stacks by their numbers, a frame a line. */
  get all(): ReadonlyMap<number, string> {
    return this.#texts;
  }
}
