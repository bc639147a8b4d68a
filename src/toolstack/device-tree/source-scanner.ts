// Finds the words of a device tree source, .dts (Devicetree Specification v0.4 §6). What a word may be made
// of depends on where it stands, so the reader (source-reader.ts) asks for the kind that it expects next.

import { type Findings, type Place, quoted } from '../finding.ts';

/** A mistake that leaves nothing to go on with; it is reported before it is thrown, and ends the reading. */
export class SourceStop extends Error {}

const BLANKS = /[ \t\r\n\f\v]+/y;
/** What the C preprocessor leaves behind: # 12 "file.dts" 1. */
const LINE_MARKER = /#(?:line)?[ \t]+[0-9]+[ \t]+"[^"\n]*"[^\n]*/y;
const PREPROCESSOR = /#(?:include|define|undef|ifn?def|if|else|elif|endif|pragma|error|warning)\b[^\n]*/y;
const REST_OF_WORD = /[^ \t\r\n;{}<>=,]{1,60}|./suy;

/** Stands in a source and hands out its words. */
export class Scanner {
  private readonly text: string;
  private readonly findings: Findings;
  private readonly lineStarts: readonly number[];
  private offset = 0;

  constructor(text: string, findings: Findings) {
    this.text = text;
    this.findings = findings;
    const lineStarts = [0];
    for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lineStarts.push(at + 1);
    this.lineStarts = lineStarts;
  }

  /** The place of the next word. */
  place(): Place {
    this.skipBlanks();
    return this.placeAt(this.offset);
  }

  /** The next word if `pattern` (sticky) matches it, which is then passed; '' otherwise. */
  take(pattern: RegExp): string {
    this.skipBlanks();
    pattern.lastIndex = this.offset;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.offset += found.length;
    return found;
  }

  /** Passes `word` if it stands next; whether it did. */
  takeWord(word: string): boolean {
    this.skipBlanks();
    if (!this.text.startsWith(word, this.offset)) return false;
    this.offset += word.length;
    return true;
  }

  /** Whether `word` stands next. */
  sees(word: string): boolean {
    this.skipBlanks();
    return this.text.startsWith(word, this.offset);
  }

  /** Passes `word`, which must stand next. */
  expect(word: string, where: string): void {
    if (!this.takeWord(word)) this.stop(`\`${word}\` ${where}`);
  }

  atEnd(): boolean {
    this.skipBlanks();
    return this.offset === this.text.length;
  }

  /** Reports that something else was expected here, and ends the reading. */
  stop(expected: string): never {
    const place = this.place();
    const found = this.atEnd() ? 'the end of the file' : quoted(this.take(REST_OF_WORD));
    this.fail(place, `expected ${expected}, found ${found}`);
  }

  /** Reports a mistake and ends the reading. */
  fail(place: Place, message: string, help?: string): never {
    this.findings.error(place, message, help);
    throw new SourceStop();
  }

  private skipBlanks(): void {
    while (true) {
      BLANKS.lastIndex = this.offset;
      this.offset += BLANKS.exec(this.text)?.[0].length ?? 0;
      if (this.text.startsWith('//', this.offset)) this.skipPast('\n', this.text.length);
      else if (this.text.startsWith('/*', this.offset)) this.skipComment();
      else if (this.text[this.offset] !== '#' || !this.skipPreprocessor()) return;
    }
  }

  private skipComment(): void {
    const place = this.placeAt(this.offset);
    this.offset += 2;
    if (!this.skipPast('*/', undefined)) this.fail(place, 'the comment that starts here has no end');
  }

  /** Passes everything up to and with `end`, or to `otherwise` if there is none; whether it went anywhere. */
  private skipPast(end: string, otherwise: number | undefined): boolean {
    const found = this.text.indexOf(end, this.offset);
    const target = found === -1 ? otherwise : found + end.length;
    if (target !== undefined) this.offset = target;
    return target !== undefined;
  }

  private skipPreprocessor(): boolean {
    const lineStart = this.lineStarts[this.placeAt(this.offset).line - 1]!;
    if (this.text.slice(lineStart, this.offset).trim() !== '') return false;
    PREPROCESSOR.lastIndex = this.offset;
    const line = PREPROCESSOR.exec(this.text)?.[0];
    if (line !== undefined)
      this.fail(
        this.placeAt(this.offset),
        `${quoted(line)} is for the C preprocessor`,
        'run `cpp -nostdinc -x assembler-with-cpp -undef` first',
      );
    LINE_MARKER.lastIndex = this.offset;
    const marker = LINE_MARKER.exec(this.text)?.[0];
    this.offset += marker?.length ?? 0;
    return marker !== undefined;
  }

  private placeAt(offset: number): Place {
    let low = 0;
    let high = this.lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.lineStarts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return { line: low + 1, column: offset - this.lineStarts[low]! + 1 };
  }
}
