// The log as people read it: time, level, device, sentence, the rule that was broken. Text that a guest may have chosen
// has no control characters, which could rewrite a terminal (case D9). Used by operation.ts.

import type { LogEntry, PrintEntry } from './serve-log.ts';

const STYLES = { info: '', warn: '\x1b[33m', error: '\x1b[31m' } as const;
const FAINT = '\x1b[2m';
const RESET = '\x1b[0m';

/** Control and format characters, among them those that change the direction of writing, and lone surrogates. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** The text with each character that is no plain one as its number: "\u{1b}". */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** @param write writes at once */
export function prettyPrinter(write: (text: string) => void, colour: boolean): PrintEntry {
  return (entry) => write(logText(entry, colour));
}

/** The line of an entry, with its line feed. */
export function logText(
  { time, level, device, message, clause, repeated }: LogEntry,
  colour: boolean,
): string {
  const paint = (style: string, text: string): string =>
    colour && style !== '' ? `${style}${text}${RESET}` : text;
  const when = paint(FAINT, time.toISOString().slice(0, 19).replace('T', ' '));
  const who = device === '' ? '' : `${printable(device)}: `;
  const rule = clause === undefined ? '' : ` (${printable(clause)})`;
  const more = repeated === undefined ? '' : ` [${repeated} more like this were not shown]`;
  return `${when} ${paint(STYLES[level], level.padEnd(5))} ${who}${printable(message)}${rule}${more}\n`;
}
