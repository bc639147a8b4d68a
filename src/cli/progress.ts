// A progress bar on a terminal, and nothing anywhere else.

import { SingleBar } from 'cli-progress';

/** The progress of one long job, on standard error. */
export interface Progress {
  /** `done` of the job's bytes are done. */
  update(done: number): void;
  stop(): void;
}

const silent: Progress = { update: () => undefined, stop: () => undefined };

/** Starts a bar for `total` bytes of work called `name`. */
export function startProgress(name: string, total: number): Progress {
  if (!process.stderr.isTTY) return silent;
  const start = performance.now();
  const bar = new SingleBar({
    stream: process.stderr,
    format: `${name.padEnd(10)} {bar} {percentage}%  {rate}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 40,
    hideCursor: true,
    clearOnComplete: true,
    stopOnComplete: false,
  });
  bar.start(total, 0, { rate: '' });
  return {
    update(done) {
      const mibPerSecond = done / 2 ** 20 / ((performance.now() - start) / 1000);
      bar.update(done, { rate: `${mibPerSecond.toFixed(0)} MiB/s` });
    },
    stop: () => bar.stop(),
  };
}
