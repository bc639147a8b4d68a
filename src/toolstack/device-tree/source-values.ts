// Values of properties in a device tree source: strings, <cells>, [bytes], references, /bits/. References
// can name what comes later, so a value stays in pieces until the whole tree is read: source-references.ts.

import type { Findings, Place } from '../finding.ts';
import { readInteger, unescaped } from './source-expression.ts';
import type { Scanner } from './source-scanner.ts';

/** A place in a value where a reference stands: a node's phandle in a cell, or its path as a string. */
export interface Reference {
  readonly kind: 'phandle' | 'path';
  /** A label, or a path that starts with /. */
  readonly target: string;
  readonly place: Place;
}

/** A value before its references are resolved. */
export type Piece = Uint8Array | Reference;

/** The bytes of `pieces` in a row; undefined if there are references among them. */
export function joined(pieces: readonly Piece[]): Uint8Array | undefined {
  const parts = pieces.filter((piece) => piece instanceof Uint8Array);
  if (parts.length < pieces.length) return undefined;
  const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/** Labels in front of a node or property, or inside of a value. */
export const LABEL = /[a-zA-Z_][a-zA-Z0-9_]*:/y;
const REFERENCE = /&(?:[a-zA-Z_][a-zA-Z0-9_]*|\{\/[a-zA-Z0-9,._+*#?@/-]*\})/y;
const STRING = /"(?:[^"\\]|\\[\s\S])*"/y;
const BYTE = /[0-9a-fA-F]{2}/y;

/** The target of a reference that stands next: a label or a path; undefined if none stands there. */
export function readReference(scanner: Scanner): string | undefined {
  const reference = scanner.take(REFERENCE);
  return reference === '' ? undefined : reference.replace(/^&\{?|\}$/g, '');
}

/** Reads what stands behind `name =`, up to the semicolon, which stays. */
export function readValue(scanner: Scanner, findings: Findings): Piece[] {
  const pieces: Piece[] = [];
  do {
    skipLabels(scanner);
    readItem(scanner, findings, pieces);
    skipLabels(scanner);
  } while (scanner.takeWord(','));
  return pieces;
}

function skipLabels(scanner: Scanner): void {
  while (scanner.take(LABEL) !== '');
}

function readItem(scanner: Scanner, findings: Findings, pieces: Piece[]): void {
  const place = scanner.place();
  if (scanner.takeWord('/incbin/'))
    scanner.fail(place, '/incbin/ is not supported', 'write the bytes out: [ 01 23 … ]');
  const string = scanner.take(STRING);
  const target = string === '' ? readReference(scanner) : undefined;
  if (string !== '') pieces.push(unescaped(string.slice(1, -1)), Uint8Array.of(0));
  else if (target !== undefined) pieces.push({ kind: 'path', target, place });
  else if (scanner.takeWord('[')) readBytes(scanner, pieces);
  else if (scanner.takeWord('/bits/')) readCells(scanner, findings, pieces, readWidth(scanner));
  else if (scanner.sees('<')) readCells(scanner, findings, pieces, 32);
  else scanner.stop('a "string", <cells>, [bytes] or &reference');
}

function readBytes(scanner: Scanner, pieces: Piece[]): void {
  const bytes: number[] = [];
  while (!scanner.takeWord(']')) {
    skipLabels(scanner);
    const byte = scanner.take(BYTE);
    if (byte !== '') bytes.push(Number.parseInt(byte, 16));
    else if (!scanner.sees(']')) scanner.stop('two hexadecimal digits or `]`');
  }
  pieces.push(Uint8Array.from(bytes));
}

function readWidth(scanner: Scanner): number {
  const place = scanner.place();
  const width = Number(readInteger(scanner) ?? scanner.stop('the number of bits'));
  if (![8, 16, 32, 64].includes(width)) scanner.fail(place, `/bits/ takes 8, 16, 32 or 64, not ${width}`);
  return width;
}

function readCells(scanner: Scanner, findings: Findings, pieces: Piece[], width: number): void {
  scanner.expect('<', 'before the cells');
  const bytes: number[] = [];
  while (true) {
    skipLabels(scanner);
    if (scanner.takeWord('>')) break;
    const place = scanner.place();
    const target = readReference(scanner);
    if (target === undefined) pushInteger(bytes, readCell(scanner, findings, place, width), width);
    else if (width !== 32) scanner.fail(place, `a reference needs 32 bits, not ${width}`);
    else pieces.push(Uint8Array.from(bytes.splice(0)), { kind: 'phandle', target, place });
  }
  pieces.push(Uint8Array.from(bytes));
}

function readCell(scanner: Scanner, findings: Findings, place: Place, width: number): bigint {
  const value = readInteger(scanner) ?? scanner.stop('a number, &reference or `>`');
  const above = value >> BigInt(width);
  // All ones above is a negative number, or what dtc takes for one.
  if (above !== 0n && above !== (1n << BigInt(64 - width)) - 1n)
    findings.error(place, `0x${value.toString(16)} does not fit in ${width} bits`);
  return value;
}

function pushInteger(bytes: number[], value: bigint, width: number): void {
  for (let shift = width - 8; shift >= 0; shift -= 8) bytes.push(Number((value >> BigInt(shift)) & 0xffn));
}
