// The log as JSON lines, by pino, for journald and whoever collects logs. Used by operation.ts.

import { pino } from 'pino';
import { printable } from './log-text.ts';
import type { PrintEntry } from './serve-log.ts';

/** @param write writes at once */
export function jsonPrinter(write: (text: string) => void): PrintEntry {
  let time = new Date(0);
  const logger = pino(
    {
      base: { pid: process.pid },
      timestamp: () => `,"time":"${time.toISOString()}"`,
      formatters: { level: (level) => ({ level }) },
    },
    { write },
  );
  return ({ level, message, time: when, ...rest }) => {
    time = when;
    logger[level](rest, printable(message));
  };
}
