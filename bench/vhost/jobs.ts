// What the backends are given to do: sizes, depths, reads and writes, images, and how the frontend waits.
// Before comparison.ts, which runs them.

/** One row of the table. */
export interface Job {
  readonly write: boolean;
  readonly sequential: boolean;
  /** Bytes of a request. */
  readonly size: number;
  /** Requests under way at a time. */
  readonly depth: number;
  /** The image is opened with O_DIRECT; otherwise it is in the page cache. */
  readonly direct: boolean;
  /** The frontend blocks until it is signalled; otherwise it polls. */
  readonly interrupts: boolean;
}

const KIB = 1024;

const SHAPES = [
  { size: 4 * KIB, sequential: false, depth: 1 },
  { size: 4 * KIB, sequential: false, depth: 8 },
  { size: 4 * KIB, sequential: false, depth: 32 },
  { size: 64 * KIB, sequential: false, depth: 8 },
  { size: 1024 * KIB, sequential: true, depth: 8 },
];

/** Every job, in the order of the table. */
export const JOBS: readonly Job[] = [false, true].flatMap((interrupts) =>
  [false, true].flatMap((direct) =>
    [false, true].flatMap((write) => SHAPES.map((shape) => ({ ...shape, write, direct, interrupts }))),
  ),
);

/** A name that says all of it: `4 KiB random read, depth 1, cached, polling`. */
export function nameOf({ write, sequential, size, depth, direct, interrupts }: Job): string {
  const unit = size < 1024 * KIB ? `${size / KIB} KiB` : `${size / 1024 / KIB} MiB`;
  const order = sequential ? 'sequential' : 'random';
  const image = direct ? 'O_DIRECT' : write ? 'buffered' : 'cached';
  return `${unit} ${order} ${write ? 'write' : 'read'}, depth ${depth}, ${image}, ${interrupts ? 'interrupts' : 'polling'}`;
}

/** The job of 4 KiB random requests that the other words choose. */
export function smallJob(depth: number, changes: Partial<Job> = {}): Job {
  return {
    write: false,
    sequential: false,
    size: 4 * KIB,
    depth,
    direct: false,
    interrupts: false,
    ...changes,
  };
}
