// Cuts the text of a guest configuration into tokens, exactly those of xl's own lexer (xl.cfg(5); libxlutil
// was the yardstick for every odd case). The parser is next: xl-cfg-parser.ts.

import { type Findings, type Place, quoted } from './finding.ts';

/** A token; `bad` stands for text that was already reported, so that the parser stays silent about it. */
export interface Token {
  readonly kind:
    | 'name'
    | 'number'
    | 'string'
    | '['
    | ']'
    | ','
    | '='
    | '+='
    | ';'
    | 'newline'
    | 'end'
    | 'bad';
  /** What stands in the file; for a string what it means, without quotes and backslashes. */
  readonly text: string;
  readonly place: Place;
  /** Of a string: the indices into `text` of characters that take two in the file because of a backslash. */
  readonly escapes: readonly number[];
}

const NAME = /[a-z][._0-9a-z]*/y;
const NUMBER = /[0-9][0-9a-fx]*/y;
const STRING = /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/y;
const BLANK = /[ \t]+/y;
const COMMENT = /#[^\n]*/y;
const PUNCTUATION = /\+=|[[\],=;]/y;
/** xl gives up on everything up to the next blank, so one finding speaks of as much. */
const REST_OF_WORD = /[^ \t\n]*/y;

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  a: '\u0007',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

const NO_ESCAPES: readonly number[] = [];

/** Where the lexer stands. */
interface Cursor {
  readonly text: string;
  readonly findings: Findings;
  offset: number;
  line: number;
  lineStart: number;
}

function here({ offset, line, lineStart }: Cursor): Place {
  return { line, column: offset - lineStart + 1 };
}

/** The text that `pattern` (sticky) matches at the cursor, which moves behind it; '' when it does not match. */
function take(cursor: Cursor, pattern: RegExp): string {
  pattern.lastIndex = cursor.offset;
  const found = pattern.exec(cursor.text)?.[0] ?? '';
  cursor.offset += found.length;
  return found;
}

/** All tokens of `text`; the last one is `end`. What is no token is reported to `findings`. */
export function tokenize(text: string, findings: Findings): Token[] {
  const cursor: Cursor = { text, findings, offset: 0, line: 1, lineStart: 0 };
  const tokens: Token[] = [];
  while (cursor.offset < text.length) {
    const token = nextToken(cursor);
    if (token !== undefined) tokens.push(token);
  }
  return [...tokens, { kind: 'end', text: '', place: here(cursor), escapes: NO_ESCAPES }];
}

function nextToken(cursor: Cursor): Token | undefined {
  const place = here(cursor);
  const plain = (kind: Token['kind'], text: string): Token => ({ kind, text, place, escapes: NO_ESCAPES });
  if (cursor.text[cursor.offset] === '\n') {
    cursor.offset++;
    cursor.line++;
    cursor.lineStart = cursor.offset;
    return plain('newline', '\n');
  }
  if (take(cursor, BLANK)) return undefined;
  const comment = take(cursor, COMMENT);
  if (comment) return skipComment(cursor, place, comment);
  const name = take(cursor, NAME);
  if (name) return plain('name', name);
  const number = take(cursor, NUMBER);
  if (number) return plain('number', number);
  const punctuation = take(cursor, PUNCTUATION);
  // The pattern matches nothing but these kinds' own spelling.
  if (punctuation) return plain(punctuation as Token['kind'], punctuation);
  const string = take(cursor, STRING);
  if (string) return stringToken(cursor, place, string);
  const word = take(cursor, REST_OF_WORD);
  reportWord(cursor, place, word);
  return plain('bad', word);
}

/** xl's pattern for a comment ends in a line break; a lone # at the end of the file passes by accident. */
function skipComment({ text, offset, findings }: Cursor, place: Place, comment: string): undefined {
  if (offset === text.length && comment.length > 1)
    findings.error(
      place,
      'xl refuses a comment on a last line that has no line break',
      'end the file with a line break',
    );
  return undefined;
}

/** Undoes the backslashes of a quoted string; reports one that xl refuses or misreads. */
function stringToken(cursor: Cursor, place: Place, quotedText: string): Token {
  const escapes: number[] = [];
  let text = '';
  for (let at = 1; at < quotedText.length - 1; at++) {
    const character = quotedText[at]!;
    if (character !== '\\') {
      text += character;
      continue;
    }
    const escaped = quotedText[++at]!;
    const meaning = ESCAPES[escaped];
    if (meaning === undefined) reportEscape(cursor, { ...place, column: place.column + at - 1 }, escaped);
    escapes.push(text.length);
    text += meaning ?? escaped;
  }
  return { kind: 'string', text, place, escapes };
}

function reportEscape({ findings }: Cursor, place: Place, escaped: string): void {
  const shown = quoted(`\\${escaped}`);
  if (/[0-7x]/.test(escaped))
    findings.error(
      place,
      `xl loses characters that are written by number, like ${shown}`,
      'write it as it is',
    );
  else findings.error(place, `${shown} in a string means nothing to xl`, 'for a backslash write two of them');
}

/** Says of text that is no token what it probably was meant to be. */
function reportWord({ findings, text, offset }: Cursor, place: Place, word: string): void {
  const first = word[0]!;
  const shown = quoted(word);
  if (first === '\ufeff')
    findings.error(place, 'the file starts with a byte order mark', 'save it as plain UTF-8');
  else if (first === '\r')
    findings.error(
      place,
      'a line ends in a carriage return, which xl refuses',
      'save the file with Unix line ends',
    );
  else if (first === '"' || first === "'")
    findings.error(place, `the string that starts with ${shown} has no closing quote on its line`);
  else if (/[A-Z]/.test(first)) reportCapital(findings, place, word, text[offset - word.length - 1]);
  else if (/[-+.():*/%]/.test(first))
    findings.error(
      place,
      `${shown} is not a value`,
      'xl has no expressions; write a number, a "string" or a [list]',
    );
  else findings.error(place, `${shown} cannot stand here`, 'put text in quotes');
}

function reportCapital(findings: Findings, place: Place, word: string, before: string | undefined): void {
  const shown = quoted(word);
  if (before !== undefined && /[0-9]/.test(before))
    findings.error(place, `a number cannot be followed by ${shown}`, 'write the number without a unit');
  else if (/^(True|False)\b/.test(word))
    findings.error(place, `${shown} is not a value`, `write ${word.startsWith('True') ? '1' : '0'}`);
  else findings.error(place, `${shown}: names are in lower case, and text stands in quotes`);
}
