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
  return ({ level, device, message, clause, time: when, repeated }) => {
    time = when;
    const rule = clause === undefined ? undefined : printable(clause);
    logger[level]({ device: printable(device), clause: rule, repeated }, printable(message));
  };
}
