// Domains that end while others hold on to them: the moves that tests of it are made of.

import assert from 'node:assert/strict';
import { GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTST_OKAY } from '../../abi/grant.ts';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import type { DomainOptions } from './domain-options.ts';
import { addDomain, bootTestMachine, type TestDomain } from './domains.test.helper.ts';
import type { Xen } from './xen.ts';

/** A reference, and a page to grant by it. */
export const REF = 8;
export const PAGE = 3;
/** Flags of a read-only mapping. */
export const READONLY = GNTMAP_HOST_MAP | GNTMAP_READONLY;

/** Takes a domain apart, to the end. */
export function destroy(xen: Xen, id: number): void {
  for (const _ of xen.destroyDomain(id));
}

/** Grants pages to a peer, writable. */
export function grant(granter: TestDomain, ref: number, peer: TestDomain, frame = PAGE, count = 1): void {
  granter.ports.grantTable.grant(ref as GrantRef, count, peer.id, frame as FrameNumber, false);
}

/** Maps at a place of the mapper's window. Returns the handle, or a status. */
export const map = (
  { xen, record }: TestDomain,
  place: number,
  ref: number,
  owner: number,
  flags = GNTMAP_HOST_MAP,
) => xen.grants.map(record, record.window + place, flags, ref, owner);
/** Ends what is mapped at a place. */
export const unmap = ({ xen, record }: TestDomain, place: number, handle: number) =>
  xen.grants.unmap(record, record.window + place, handle);

/** A domain that has mapped something already: what it takes for that it keeps. */
export function mapper(xen: Xen, id: number): TestDomain {
  const domain = addDomain(xen, id, { maxMaptrackFrames: 2 });
  grant(domain, 500, domain);
  assert.equal(unmap(domain, 0, map(domain, 0, 500, id)), GNTST_OKAY);
  domain.ports.grantTable.revoke(500 as GrantRef, 1);
  return domain;
}

/** A machine with domains 1 and 2, of which 2 may end. */
export function machine(options: Partial<DomainOptions> = {}) {
  const xen = bootTestMachine();
  const peer = mapper(xen, 1);
  const before = xen.free;
  const granter = addDomain(xen, 2, options);
  return { xen, peer, granter, before };
}
