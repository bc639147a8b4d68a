// Entries of version 2 as a guest that knows only the ABI writes them into its table, and their statuses.

import {
  grantEntryV2Full,
  grantEntryV2Sub,
  grantEntryV2Transitive,
  GRANT_ENTRIES_PER_FRAME_V2,
  GTF_PERMIT_ACCESS,
  GTF_READONLY,
  GTF_SUB_PAGE,
  GTF_TRANSITIVE,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { TestDomain } from '../domains.test.helper.ts';
import { statusWord } from './shared-entry.ts';

/** An entry of a version 2 table in its three shapes, to be read and scribbled on. */
export function entryV2({ record, xen }: TestDomain, ref: number) {
  const memory = new Uint8Array(xen.state.memory);
  const frame = record.grantFrame(Math.floor(ref / GRANT_ENTRIES_PER_FRAME_V2));
  const at = frame * XEN_PAGE_SIZE + (ref % GRANT_ENTRIES_PER_FRAME_V2) * grantEntryV2Full.size;
  return {
    full: grantEntryV2Full.over(memory).at(at),
    sub: grantEntryV2Sub.over(memory).at(at),
    transitive: grantEntryV2Transitive.over(memory).at(at),
  };
}

/** The status of a version 2 entry. */
export function statusOf({ record, xen }: TestDomain, ref: number): number {
  return new Uint16Array(xen.state.memory)[statusWord(record, ref)];
}

/** Grants `length` bytes from byte `first` of a page (version 2). */
export function grantPart(
  granter: TestDomain,
  ref: number,
  peer: number,
  frame: number,
  [first, length]: readonly [first: number, length: number],
  readonly = false,
): void {
  const flags = GTF_PERMIT_ACCESS | GTF_SUB_PAGE | (readonly ? GTF_READONLY : 0);
  const [frameLow, frameHigh] = [frame, 0];
  Object.assign(entryV2(granter, ref).sub, {
    page_off: first,
    length,
    frameLow,
    frameHigh,
    domid: peer,
    flags,
  });
}

/** Passes on to `peer` what `source` has granted as its reference `sourceRef` (version 2). */
export function passOn(
  granter: TestDomain,
  ref: number,
  peer: number,
  source: number,
  sourceRef: number,
  readonly = false,
): void {
  const flags = GTF_TRANSITIVE | (readonly ? GTF_READONLY : 0);
  const entry = entryV2(granter, ref).transitive;
  Object.assign(entry, { trans_domid: source, gref: sourceRef, domid: peer, flags });
}
