// What stepped code (transform.ts) does instead of touching memory: it yields an Access, and whoever drives it
// performs the access and hands the result back. Code that is not stepped performs it now, and is watched.

export type TypedArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array;

/** One access to memory that others may change at any time. */
export interface Access {
  /** Where the source does it, such as "src/hosts/model/lock.ts:11". */
  readonly site: string;
  /**
   * "get" or "put" for an element; "Atomics.add" and so on, "blind.add" and "blind.sub" where nobody looks at the result;
   * ".fill" and so on for methods of views.
   */
  readonly kind: string;
  readonly view: TypedArray | DataView;
  /** What follows the view: index or offset first, then values. */
  readonly operands: readonly unknown[];
}

/** A stretch of bytes of one buffer. */
export interface Span {
  readonly buffer: ArrayBufferLike;
  readonly start: number;
  readonly end: number;
}

/** Code that was stepped: runs to its next access each time. */
export type Steps<Result = unknown> = Generator<Access, Result, unknown>;

export function access(
  site: string,
  kind: string,
  view: Access['view'],
  ...operands: readonly unknown[]
): Access {
  return { site, kind, view, operands };
}

let watcher: ((access: Access) => void) | undefined;

/** Calls `body`; meanwhile `watch` sees, before they happen, the accesses of code that is not stepped. */
export function watched<Result>(watch: (access: Access) => void, body: () => Result): Result {
  const before = watcher;
  watcher = watch;
  try {
    return body();
  } finally {
    watcher = before;
  }
}

/** Performs an access at once, for code that is not stepped. */
export function now(
  site: string,
  kind: string,
  view: Access['view'],
  ...operands: readonly unknown[]
): unknown {
  const made = access(site, kind, view, ...operands);
  watcher?.(made);
  return perform(made);
}

type Anything = (...args: readonly unknown[]) => unknown;

type Performer = (view: Access['view'], operands: readonly unknown[]) => unknown;

const PERFORMERS = new Map<string, Performer>([
  ['get', (view, [index]) => (view as TypedArray)[index as number]],
  [
    'put',
    (view, [index, value]) => {
      (view as TypedArray)[index as number] = value as number;
      return value;
    },
  ],
]);

/** Makes an access. */
export function perform({ kind, view, operands }: Access): unknown {
  let performer = PERFORMERS.get(kind);
  if (performer === undefined) {
    performer = performerOf(kind);
    PERFORMERS.set(kind, performer);
  }
  return performer(view, operands);
}

/** How to make an access by a function of Atomics, or by a method of the view. */
function performerOf(kind: string): Performer {
  const [owner, name] = kind.split('.');
  if (owner === 'Atomics') {
    const method = Reflect.get(Atomics, name) as Anything;
    return (view, operands) => method(view, ...operands);
  }
  if (owner === 'blind') {
    const method = Reflect.get(Atomics, name) as Anything;
    return (view, operands) => void method(view, ...operands);
  }
  return (view, operands) => (Reflect.get(view, name) as Anything).apply(view, [...operands]);
}

const ONLY_READ = new Set(['get', 'Atomics.load', 'Atomics.wait', 'Atomics.notify', '.slice']);
const ONLY_WRITE = new Set(['put', 'Atomics.store']);

/** Whether an access is to one element: its index is the first operand. */
export function isOfElement({ kind }: Access): boolean {
  return !kind.startsWith('.');
}

/** Whether an access adds to an element without a look at it. */
export function isBlind({ kind }: Access): boolean {
  return kind.startsWith('blind.');
}

export const readsOnly = ({ kind }: Access): boolean => ONLY_READ.has(kind);
export const writesOnly = ({ kind }: Access): boolean => ONLY_WRITE.has(kind);

/** The bytes that an access reads and writes; a compare-and-swap counts as a write whether it succeeds or not. */
export function spans(made: Access): { readonly reads: readonly Span[]; readonly writes: readonly Span[] } {
  const { kind, view, operands } = made;
  if (view instanceof DataView) {
    const at = view.byteOffset + (operands[0] as number);
    const span = [{ buffer: view.buffer, start: at, end: at + Number(/\d+$/.exec(kind)?.[0] ?? 8) / 8 }];
    return kind.startsWith('.get') ? { reads: span, writes: [] } : { reads: [], writes: span };
  }
  const span = [elements(view, ...extent(made))];
  if (kind === '.copyWithin') {
    const [target, first, end] = [operands[0], operands[1], operands[2] ?? view.length] as number[];
    return {
      reads: [elements(view, first, end)],
      writes: [elements(view, target, Math.min(target + end - first, view.length))],
    };
  }
  if (kind === '.set') return { reads: [spanOf(operands[0])].flat(), writes: span };
  if (kind === '.fill' || writesOnly(made)) return { reads: [], writes: span };
  if (readsOnly(made)) return { reads: span, writes: [] };
  return { reads: span, writes: span };
}

/** First element and end of what an access touches. */
function extent({ kind, view, operands }: Access): [first: number, end: number] {
  const length = (view as TypedArray).length;
  const place = (operand: unknown, otherwise: number) => {
    const given = operand === undefined ? otherwise : (operand as number);
    return given < 0 ? Math.max(length + given, 0) : Math.min(given, length);
  };
  if (kind === '.slice') return [place(operands[0], 0), place(operands[1], length)];
  if (kind === '.fill') return [place(operands[1], 0), place(operands[2], length)];
  if (kind === '.set') {
    const first = place(operands[1], 0);
    return [first, first + (operands[0] as ArrayLike<number>).length];
  }
  if (kind.startsWith('.')) return [0, length];
  return [operands[0] as number, (operands[0] as number) + 1];
}

function elements(view: TypedArray, first: number, end: number): Span {
  const size = view.BYTES_PER_ELEMENT;
  return { buffer: view.buffer, start: view.byteOffset + first * size, end: view.byteOffset + end * size };
}

function spanOf(source: unknown): Span[] {
  if (!ArrayBuffer.isView(source)) return [];
  return [{ buffer: source.buffer, start: source.byteOffset, end: source.byteOffset + source.byteLength }];
}

/** What an access has brought to light, as a value that can be compared. */
export function seenBy(made: Access, result: unknown): unknown {
  if (made.kind === '.fill') return undefined;
  if (made.kind === '.set' || made.kind === '.copyWithin') {
    const [{ buffer, start, end }] = spans(made).writes;
    return String(new Uint8Array(buffer, start, end - start));
  }
  return ArrayBuffer.isView(result) ? String(result) : result;
}

/** An access in words, for a trace. */
export function describe({ site, kind, operands }: Access, result: unknown): string {
  const given = operands.map((operand) => (typeof operand === 'number' ? operand : '…')).join(', ');
  const seen = typeof result === 'number' ? ` = ${result}` : '';
  return `${kind}(${given})${seen}  ${site}`;
}
