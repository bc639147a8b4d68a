// Integers of a device tree source: literals, and in parentheses C expressions, computed with 64 bits
// without sign as dtc does.

import type { Scanner } from './source-scanner.ts';

const LITERAL = /(?:0[xX][0-9a-fA-F]{1,32}|[0-9]{1,32})(?:ULL|LL|UL|L|U)?(?![0-9a-zA-Z_])/y;
const CHARACTER = /'(?:[^'\\\n]|\\(?:x[0-9a-fA-F]{1,2}|[0-7]{1,3}|[^x\n]))'/y;

/** Parentheses and signs that may be open at once. */
const MAX_DEPTH = 64;

/** Binary operators by rank, the loosest first; in each rank the longer spelling first. */
const RANKS: readonly (readonly string[])[] = [
  ['||'],
  ['&&'],
  ['|'],
  ['^'],
  ['&'],
  ['==', '!='],
  ['<=', '>=', '<', '>'],
  ['<<', '>>'],
  ['+', '-'],
  ['*', '/', '%'],
];

/** What must not follow an operator, because it would be a longer one. */
const NOT_BEFORE: Readonly<Record<string, RegExp>> = {
  '|': /\|(?!\|)/y,
  '&': /&(?!&)/y,
  '<': /<(?!<)/y,
  '>': />(?!>)/y,
};

/** The integer that stands next, or undefined if none does: a literal, a character, or `( expression )`. */
export function readInteger(scanner: Scanner): bigint | undefined {
  return new Expression(scanner).primary();
}

class Expression {
  private readonly scanner: Scanner;
  private depth = 0;

  constructor(scanner: Scanner) {
    this.scanner = scanner;
  }

  primary(): bigint | undefined {
    const { scanner } = this;
    if (scanner.sees('(')) return this.deeper(() => this.parenthesis());
    const place = scanner.place();
    const literal = scanner.take(LITERAL).replace(/[UL]+$/, '');
    if (literal !== '') {
      if (/^0[0-9]*[89]/.test(literal)) scanner.fail(place, `${literal} starts with 0 but is not octal`);
      const value = BigInt(/^0[0-7]+$/.test(literal) ? `0o${literal.slice(1)}` : literal);
      if (value >> 64n !== 0n) scanner.fail(place, `${literal} does not fit in 64 bits`);
      return value;
    }
    const character = scanner.take(CHARACTER);
    return character === '' ? undefined : BigInt(unescaped(character.slice(1, -1))[0]!);
  }

  private parenthesis(): bigint {
    this.scanner.expect('(', 'before the expression');
    const value = this.conditional();
    this.scanner.expect(')', 'after the expression');
    return value;
  }

  private conditional(): bigint {
    const condition = this.binary(0);
    if (!this.scanner.takeWord('?')) return condition;
    return this.deeper(() => {
      const yes = this.conditional();
      this.scanner.expect(':', 'between the two results of `?`');
      const no = this.conditional();
      return condition === 0n ? no : yes;
    });
  }

  private binary(rank: number): bigint {
    const operators = RANKS[rank];
    if (operators === undefined) return this.unary();
    let left = this.binary(rank + 1);
    while (true) {
      const place = this.scanner.place();
      const operator = operators.find((each) => this.takeOperator(each));
      if (operator === undefined) return left;
      const right = this.binary(rank + 1);
      if ((operator === '/' || operator === '%') && right === 0n)
        this.scanner.fail(place, 'a division by zero');
      left = BigInt.asUintN(64, apply(operator, left, right));
    }
  }

  private takeOperator(operator: string): boolean {
    const pattern = NOT_BEFORE[operator];
    return pattern === undefined ? this.scanner.takeWord(operator) : this.scanner.take(pattern) !== '';
  }

  private unary(): bigint {
    const { scanner } = this;
    if (scanner.takeWord('-')) return BigInt.asUintN(64, -this.deeper(() => this.unary()));
    if (scanner.takeWord('~')) return BigInt.asUintN(64, ~this.deeper(() => this.unary()));
    if (scanner.takeWord('!')) return this.deeper(() => this.unary()) === 0n ? 1n : 0n;
    return this.primary() ?? scanner.stop('a number');
  }

  private deeper<Result>(read: () => Result): Result {
    if (this.depth === MAX_DEPTH)
      this.scanner.fail(this.scanner.place(), `an expression is nested more than ${MAX_DEPTH} deep`);
    this.depth++;
    const result = read();
    this.depth--;
    return result;
  }
}

function apply(operator: string, left: bigint, right: bigint): bigint {
  const truth = (value: boolean) => (value ? 1n : 0n);
  switch (operator) {
    case '||':
      return truth(left !== 0n || right !== 0n);
    case '&&':
      return truth(left !== 0n && right !== 0n);
    case '|':
      return left | right;
    case '^':
      return left ^ right;
    case '&':
      return left & right;
    case '==':
      return truth(left === right);
    case '!=':
      return truth(left !== right);
    case '<=':
      return truth(left <= right);
    case '>=':
      return truth(left >= right);
    case '<':
      return truth(left < right);
    case '>':
      return truth(left > right);
    case '<<':
      return right < 64n ? left << right : 0n;
    case '>>':
      return right < 64n ? left >> right : 0n;
    case '+':
      return left + right;
    case '-':
      return left - right;
    case '*':
      return left * right;
    case '/':
      return left / right;
    default:
      return left % right;
  }
}

const ESCAPES: Readonly<Record<string, number>> = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 };

const encoder = new TextEncoder();

/** The bytes of the inside of a quoted text, its backslashes undone: letters, octal and hexadecimal. */
export function unescaped(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const [, literal, hexadecimal, octal, letter] of text.matchAll(
    /([^\\]+)|\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|([\s\S]))/gu,
  )) {
    if (literal !== undefined) for (const byte of encoder.encode(literal)) bytes.push(byte);
    else if (hexadecimal !== undefined) bytes.push(Number.parseInt(hexadecimal, 16));
    else if (octal !== undefined) bytes.push(Number.parseInt(octal, 8) & 0xff);
    else for (const byte of letterBytes(letter!)) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function letterBytes(letter: string): Iterable<number> {
  const code = ESCAPES[letter];
  return code === undefined ? encoder.encode(letter) : [code];
}
