// Reads the text of a guest configuration into settings with their places: `key = value` and `key += value`,
// values being numbers, strings and nested lists (xl.cfg(5), SYNTAX). What the settings mean is next:
// guest-config.ts; the text of settings again comes from printSettings at the end.

import { type Findings, type Place, quoted } from './finding.ts';
import { type Token, tokenize } from './xl-cfg-lexer.ts';

/** A number or a string: xl keeps both as text, so a number may as well stand in quotes. */
export interface XlAtom extends Place {
  readonly kind: 'number' | 'string';
  /** The number as it is written; the string without quotes and backslashes. */
  readonly text: string;
  /** Indices into `text` of characters that take two in the file because of a backslash. */
  readonly escapes: readonly number[];
}

/** A list of values. */
export interface XlList extends Place {
  readonly kind: 'list';
  readonly items: readonly XlValue[];
}

export type XlValue = XlAtom | XlList;

/** One `key = value`, at the place of its key. */
export interface XlSetting extends Place {
  readonly key: string;
  readonly operator: '=' | '+=';
  readonly value: XlValue;
}

/** Lists inside lists are read down to this depth; xl.cfg(5) has no use for more than two. */
const MAX_DEPTH = 16;
/** Characters; a guest configuration has a few thousand. */
const MAX_TEXT = 1 << 20;

/** The place of the character with `index` in the text of `atom`. */
export function placeIn({ kind, line, column, escapes }: XlAtom, index: number): Place {
  const quote = kind === 'string' ? 1 : 0;
  return { line, column: column + quote + index + escapes.filter((at) => at < index).length };
}

/** The settings of `text` in their order, as far as it can be read; what cannot goes to `findings`. */
export function parseSettings(text: string, findings: Findings): XlSetting[] {
  if (text.length > MAX_TEXT) {
    findings.error(
      { line: 1, column: 1 },
      `the file has ${text.length} characters; at most ${MAX_TEXT} are read`,
    );
    return [];
  }
  return new Parser(tokenize(text, findings), findings).settings();
}

class Parser {
  private readonly tokens: readonly Token[];
  private readonly findings: Findings;
  private next = 0;

  constructor(tokens: readonly Token[], findings: Findings) {
    this.tokens = tokens;
    this.findings = findings;
  }

  settings(): XlSetting[] {
    const settings: XlSetting[] = [];
    while (this.peek().kind !== 'end' && !this.findings.full) {
      if (this.peek().kind === 'newline' || this.peek().kind === ';') this.next++;
      else {
        const setting = this.setting();
        if (setting !== undefined) settings.push(setting);
        else this.skipToNextSetting();
      }
    }
    return settings;
  }

  private peek(): Token {
    return this.tokens[this.next]!;
  }

  private take(): Token {
    return this.tokens[this.next++]!;
  }

  private setting(): XlSetting | undefined {
    if (this.peek().kind !== 'name') return this.unexpected('the name of a setting');
    const { text: key, place } = this.take();
    const operator = this.peek().kind;
    if (operator !== '=' && operator !== '+=') return this.unexpected(`\`=\` after ${quoted(key)}`);
    this.next++;
    const value = this.value(0);
    if (value === undefined) return undefined;
    if (!['newline', ';', 'end'].includes(this.peek().kind))
      return this.unexpected('the end of the line or `;` after the value');
    return { key, operator, value, ...place };
  }

  private value(depth: number): XlValue | undefined {
    const { kind, text, place, escapes } = this.peek();
    if (kind === '[') return this.list(depth);
    if (kind !== 'number' && kind !== 'string') return this.unexpected('a number, a "string" or a [list]');
    this.next++;
    return { kind, text, escapes, ...place };
  }

  private list(depth: number): XlList | undefined {
    const { place } = this.take();
    if (depth === MAX_DEPTH) {
      this.findings.error(place, `lists are nested more than ${MAX_DEPTH} deep`);
      return undefined;
    }
    const items: XlValue[] = [];
    this.skipNewlines();
    while (this.peek().kind !== ']') {
      const item = this.value(depth + 1);
      if (item === undefined) return undefined;
      items.push(item);
      this.skipNewlines();
      if (this.peek().kind === ']') break;
      if (this.peek().kind !== ',') return this.unexpected('`,` or `]` in the list');
      this.next++;
      this.skipNewlines();
    }
    this.next++;
    return { kind: 'list', items, ...place };
  }

  private skipNewlines(): void {
    while (this.peek().kind === 'newline') this.next++;
  }

  private unexpected(expected: string): undefined {
    const { kind, text, place } = this.peek();
    if (kind === 'bad') return undefined;
    const names: Partial<Record<Token['kind'], string>> = {
      newline: 'the end of the line',
      end: 'the end of the file',
    };
    const help = kind === 'name' ? `text stands in quotes: "${text}"` : undefined;
    this.findings.error(place, `expected ${expected}, found ${names[kind] ?? quoted(text)}`, help);
    return undefined;
  }

  /** After a mistake: to the next line that looks like a setting, so that one mistake gives one finding. */
  private skipToNextSetting(): void {
    while (this.peek().kind !== 'end') {
      const { kind } = this.take();
      if (kind !== 'newline') continue;
      const operator = this.tokens[this.next + 1]?.kind;
      if (this.peek().kind === 'name' && (operator === '=' || operator === '+=')) return;
    }
  }
}

/** The text of settings, which parseSettings reads back the same. */
export function printSettings(settings: readonly XlSetting[]): string {
  return settings.map(({ key, operator, value }) => `${key} ${operator} ${printValue(value)}\n`).join('');
}

const BACKSLASHED: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\u0007': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
};

function printValue(value: XlValue): string {
  if (value.kind === 'number') return value.text;
  if (value.kind === 'list') return `[${value.items.map(printValue).join(', ')}]`;
  const text = Array.from(value.text, (character) => BACKSLASHED[character] ?? character).join('');
  return `"${text}"`;
}
