// What a request's handler is given, and how it reads its arguments out of the payload.
// Before node-requests.ts and domain-requests.ts.

import { XenstoreError } from '../xen/xenstore.ts';
import type { NodeAccess } from './access.ts';
import { type Domain, isOrdinaryDomain } from './domains.ts';
import type { Store } from './store.ts';
import type { Subscriber } from './subscriber.ts';
import type { TransactionTable } from './transactions.ts';
import { stringsIn, textOf } from './wire.ts';

/** Who asks, and what belongs to the asking connection. */
export interface Session {
  readonly store: Store;
  readonly domain: Domain;
  readonly nodes: NodeAccess;
  readonly transactions: TransactionTable;
  readonly subscriber: Subscriber;
}

/** A reply's payload; a string is one byte for each character. */
export type Reply = Uint8Array | string;

/** `nodes` are those of the request's transaction, or of the store itself. */
export type Handler = (
  session: Session,
  payload: Uint8Array,
  nodes: NodeAccess,
  transactionId: number,
) => Reply;

/** The reply where there is nothing to say. */
export const OK = 'OK\0';

/** The refusal of arguments that are none. */
export function malformed(operation: string): XenstoreError {
  return new XenstoreError('EINVAL', operation, '(malformed arguments)');
}

/** The payload as exactly one string. */
export function only(payload: Uint8Array): string {
  const end = payload.length - 1;
  if (end < 0 || payload.indexOf(0) !== end) throw malformed('request');
  return textOf(payload.subarray(0, end));
}

/** The payload as so many strings. */
export function exactly(count: number, payload: Uint8Array): string[] {
  const strings = stringsIn(payload);
  if (strings.length !== count) throw malformed('request');
  return strings;
}

/** A decimal number from 0 to `max`. */
export function decimal(text: string, max: number): number {
  const value = Number(text);
  if (!/^\d{1,10}$/.test(text) || value > max) throw malformed('request');
  return value;
}

/** A number that a domain id may be, reserved ones among them. */
export function domainNumber(text: string): number {
  return decimal(text, 0xffff);
}

/** The id of an ordinary domain. */
export function ordinaryNumber(text: string): number {
  const number = domainNumber(text);
  if (!isOrdinaryDomain(number)) throw malformed('request');
  return number;
}

/** The id of a guest. */
export function guestNumber(text: string): number {
  const number = ordinaryNumber(text);
  if (number === 0) throw malformed('request');
  return number;
}
