// The log of `grantio serve`: what is printed, and what is only counted. How it is printed is for log-text.ts and
// log-json.ts. After operation.ts, before repeat-limit.ts.

import type { Notice } from '../serving/control.ts';
import { REPEAT_WINDOW, RepeatLimit } from './repeat-limit.ts';

export const LOG_FORMATS = ['pretty', 'json'] as const;
/** From the least on. */
export const LOG_LEVELS = ['info', 'warn', 'error', 'silent'] as const;

export type LogFormat = (typeof LOG_FORMATS)[number];
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What is printed. */
export interface LogEntry extends Notice {
  readonly time: Date;
  /** How many more like it were not shown. */
  readonly repeated?: number;
}

/** Prints an entry; it is written when the call returns. */
export type PrintEntry = (entry: LogEntry) => void;

/** How a log is made. */
export interface ServeLogParts {
  /** The least that is logged. */
  readonly level: LogLevel;
  readonly print: PrintEntry;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** The log of a process. */
export class ServeLog {
  readonly #parts: ServeLogParts;
  readonly #limit = new RepeatLimit<Notice>();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: ServeLogParts) {
    this.#parts = parts;
  }

  /** Logs what has happened, unless the same has happened all the time. */
  readonly notice = (notice: Notice): void => {
    const { level, print, now } = this.#parts;
    if (LOG_LEVELS.indexOf(notice.level) < LOG_LEVELS.indexOf(level)) return;
    const time = now();
    this.#printRepeated(time);
    if (this.#limit.admit(`${notice.device} ${notice.level} ${notice.message}`, notice, time))
      print({ ...notice, time: new Date(time) });
    else this.#timer ??= setTimeout(() => this.#windowEnds(), REPEAT_WINDOW).unref();
  };

  /** Says what was held back. */
  close(): void {
    clearTimeout(this.#timer);
    this.#printRepeated(Number.POSITIVE_INFINITY);
  }

  #windowEnds(): void {
    this.#timer = undefined;
    this.#printRepeated(this.#parts.now());
  }

  #printRepeated(until: number): void {
    const { print, now } = this.#parts;
    for (const { message, count } of this.#limit.take(until))
      print({ ...message, time: new Date(now()), repeated: count });
  }
}
