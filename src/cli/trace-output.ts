// The file of --trace: opened before anything is started, written in the background of the run. When it
// cannot be written any more, tracing ends and the run goes on (case O4).

import { closeSync, openSync, writeSync } from 'node:fs';
import type { TraceConsumer } from '../audit/events.ts';
import { UsageError } from './usage.ts';

/** Where events of a run go. */
export interface TraceOutput {
  /** Takes the events of a run in `mode`. */
  consumer(mode: string): TraceConsumer;
  close(): void;
}

/** Opens the file, if one was asked for. Throws UsageError when it cannot be written. */
export function openTrace(path: string | undefined): TraceOutput | undefined {
  if (path === undefined) return undefined;
  let fd: number;
  try {
    fd = openSync(path, 'w');
  } catch (error) {
    throw new UsageError(`trace file ${path}: cannot be written: ${(error as Error).message}`);
  }
  return {
    consumer: () => ({ consume: (event) => void writeSync(fd, `${JSON.stringify(event)}\n`) }),
    close: () => closeSync(fd),
  };
}
