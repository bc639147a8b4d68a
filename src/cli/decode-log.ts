// Finds grant addresses in a log: any bytes, lines of any length, a bounded part of it in memory. After decode.ts.
//
// Text is handled as Latin-1, a character a byte, so that whatever the log holds is passed on as it is.

import { type Answer, answerOf, parseAddress } from './decode-answer.ts';

/** An address in a piece of the log. */
export interface Found {
  /** From 1; columns are bytes. */
  readonly line: number;
  readonly column: number;
  /** Where in the text of the piece the address ends. */
  readonly end: number;
  readonly answer: Answer;
}

/** A line with its end, or part of a line that is very long. */
export interface LogPiece {
  readonly text: string;
  readonly found: readonly Found[];
}

/** Lines up to this are looked at as a whole; of longer ones, stretches. */
const LONG_LINE = 1 << 16;
/** Longer than any address with its length; a stretch of a line ends at least this far before its end. */
const LONGEST_ADDRESS = 80;

/**
 * An address as logs write it: in full, in groups (0x80000000_00044aa8), without 0x, or decimal. Only the first
 * two forms count with bits 44-62 set: other numbers of 16 digits are too common.
 */
const ADDRESS = /(?<!\w)(?:0x8(?:_?[0-9a-f]){15}|80000[0-9a-f]{11}|92233[78]\d{13})(?!\w)/gi;
/** A length right behind the address, which belongs to it, and one in words. */
const PLUS_LENGTH = /\+(0x[0-9a-f]{1,16}|\d{1,20})(?!\w)/iy;
const NAMED_LENGTH =
  /[\s,;:"'()[\]{}]{1,6}(?:map )?(?:len|length|size)["']?\s?[=:]?\s?(0x[0-9a-f]{1,16}|\d{1,20})(?!\w)/iy;
/** A line that holds nothing but an address: of it, other addresses than those of grants count too. */
const ALONE = /^\s*((?:0x[0-9a-f_]{1,32}|[0-9a-f]{16}|\d{17,20})(?:\+(?:0x[0-9a-f]{1,16}|\d{1,20}))?)\s*$/i;

/** Takes a log apart into pieces, with the addresses in each. All pieces together are the log, byte for byte. */
export class LogReader {
  /** The start of the line that is not yet whole. */
  #held = '';
  #line = 1;
  #column = 1;

  /** The pieces that end with the log's next bytes. */
  *read(bytes: Uint8Array): Generator<LogPiece> {
    const lines = (this.#held + Buffer.from(bytes).toString('latin1')).split('\n');
    this.#held = lines.pop() ?? '';
    for (const text of lines) {
      yield pieceOf(`${text}\n`, this.#line++, this.#column, this.#column === 1);
      this.#column = 1;
    }
    while (this.#held.length > LONG_LINE) {
      const cut = cutIn(this.#held);
      yield pieceOf(this.#held.slice(0, cut), this.#line, this.#column, false);
      this.#held = this.#held.slice(cut);
      this.#column += cut;
    }
  }

  /** The last piece, of a log that does not end with a line's end. */
  *end(): Generator<LogPiece> {
    if (this.#held !== '') yield pieceOf(this.#held, this.#line, this.#column, this.#column === 1);
  }
}

/** Where a long line can be cut without cutting an address: at a blank, else between words, else in a long word. */
function cutIn(text: string): number {
  const last = text.length - LONGEST_ADDRESS;
  for (const between of [/\s/, /[^\w+]/])
    for (let cut = last; cut > 0; cut--) if (between.test(text.charAt(cut - 1))) return cut;
  return last;
}

function pieceOf(text: string, line: number, column: number, isWhole: boolean): LogPiece {
  const alone = isWhole ? ALONE.exec(text)?.[1] : undefined;
  const written = alone === undefined ? undefined : parseAddress(alone);
  if (alone === undefined || written === undefined || typeof written === 'string')
    return { text, found: [...foundIn(text, line, column)] };
  const start = text.indexOf(alone);
  const found = { line, column: start + 1, end: start + alone.length, answer: answerOf(alone, written) };
  return { text, found: [found] };
}

function* foundIn(text: string, line: number, column: number): Generator<Found> {
  for (const { 0: written, index } of text.matchAll(ADDRESS)) {
    const start = index + written.length;
    const plus = matchAt(PLUS_LENGTH, text, start);
    const length = (plus ?? matchAt(NAMED_LENGTH, text, start))?.[1];
    const end = start + (plus?.[0].length ?? 0);
    const answer = answerOf(text.slice(index, end), {
      address: addressIn(written),
      length: length === undefined ? undefined : Number(length),
    });
    if (answer.grant || written.startsWith('0')) yield { line, column: column + index, end, answer };
  }
}

/** The number of a text that ADDRESS matches: of sixteen digits, it is hexadecimal with or without 0x. */
function addressIn(written: string): bigint {
  const digits = written.toLowerCase().replaceAll('_', '');
  return BigInt(digits.length === 16 ? `0x${digits}` : digits);
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}
