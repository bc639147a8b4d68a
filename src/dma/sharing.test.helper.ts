// A guest that shares pages with a backend in the embedded Xen, and a backend that tries every reference there
// is: what it gets is what the guest really exposes.

import assert from 'node:assert/strict';
import { GTF_READONLY } from '../abi/grant.ts';
import { grantAddressOffset, grantAddressRef } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../hosts/model/domains.test.helper.ts';
import { type SharedEntry, sharedEntries } from '../hosts/model/grants/recount.test.helper.ts';
import { noTrace, type Tracer } from '../trace.ts';
import type { DmaAddress, DmaOperations } from './dma.ts';
import { type ExposureOptions, grantDma } from './exposure-modes.ts';
import type { GrantingDomain } from './granting-domain.ts';
import { Grants } from './grants.ts';
import { IdlePools } from './idle-pools.ts';
import type { GuestPageSize } from './guest-memory.ts';
import { References } from './references.ts';

/** The exposure modes that grant. */
export const GRANTING_MODES = ['direct', 'bounce', 'persistent', 'auto'] as const;
export type GrantingMode = (typeof GRANTING_MODES)[number];

/** Pages of the guest unless a test asks for more. */
const PAGES = 256;

/** A page that the backend can reach. */
export interface Reached {
  readonly ref: number;
  /** The guest's own number of the page. */
  readonly frame: number;
  readonly writable: boolean;
  /** The page as the backend sees it. */
  readonly bytes: Uint8Array;
}

/** A domain that maps what it can. */
export class Backend {
  readonly domain: TestDomain;
  readonly #owner: TestDomain;

  constructor(domain: TestDomain, owner: TestDomain) {
    this.domain = domain;
    this.#owner = owner;
  }

  /** Maps one reference and keeps it. Returns the mapper's handle, or a negative status. */
  map(ref: number, readonly = false): number {
    return this.domain.ports.grantMapper.map(this.#owner.id, ref, readonly);
  }

  unmap(handle: number): void {
    assert.equal(this.domain.ports.grantMapper.unmap(handle), 0);
  }

  read(handle: number, offset: number, length: number): Uint8Array {
    const { addressSpace, grantMapper } = this.domain.ports;
    return addressSpace.read(grantMapper.address(handle) + offset, length);
  }

  write(handle: number, offset: number, bytes: Uint8Array): void {
    const { addressSpace, grantMapper } = this.domain.ports;
    addressSpace.write(grantMapper.address(handle) + offset, bytes);
  }

  /** Tries every reference, as a writer and then as a reader, and lets go of all of them. */
  reach(): Reached[] {
    const reached: Reached[] = [];
    for (let ref = 0; ref < this.#owner.ports.grantTable.entries; ref++) {
      const writing = this.map(ref);
      const handle = writing >= 0 ? writing : this.map(ref, true);
      if (handle < 0) continue;
      const { frame } = sharedEntries(this.#owner).find((entry) => entry.ref === ref)!;
      const bytes = this.read(handle, 0, XEN_PAGE_SIZE);
      reached.push({ ref, frame, writable: writing >= 0, bytes });
      this.unmap(handle);
    }
    return reached;
  }

  /** The bytes behind a DMA address, page by page as the backend gets them. */
  readAt({ low, high }: DmaAddress, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.#eachPage(low, high, size, true, (handle, offset, at, length) => {
      bytes.set(this.read(handle, offset, length), at);
    });
    return bytes;
  }

  /** Writes bytes behind a DMA address. */
  writeAt({ low, high }: DmaAddress, bytes: Uint8Array): void {
    this.#eachPage(low, high, bytes.length, false, (handle, offset, at, length) => {
      this.write(handle, offset, bytes.subarray(at, at + length));
    });
  }

  #eachPage(
    low: number,
    high: number,
    size: number,
    readonly: boolean,
    each: (handle: number, offset: number, at: number, length: number) => void,
  ): void {
    let offset = grantAddressOffset(low);
    for (let at = 0, ref = grantAddressRef(low, high); at < size; ref++) {
      const length = Math.min(size - at, XEN_PAGE_SIZE - offset);
      const handle = this.map(ref, readonly);
      assert.ok(handle >= 0, `reference ${ref} cannot be mapped: ${handle}`);
      each(handle, offset, at, length);
      this.unmap(handle);
      at += length;
      offset = 0;
    }
  }
}

/** A guest, its device's backend, and the state for granting between them. */
export interface Sharing {
  readonly guest: TestDomain;
  readonly backend: Backend;
  readonly domain: GrantingDomain;
  readonly grants: Grants;
  /** The guest's memory. */
  readonly u8: Uint8Array;
}

/**
 * @param maxGrantFrames of the guest's table, one of which exists from the beginning
 * @param version of that table
 * @param backendPages of the backend's memory
 */
export function newSharing(
  options: {
    pages?: number;
    maxGrantFrames?: number;
    tracer?: Tracer;
    version?: number;
    backendPages?: number;
    pageSize?: GuestPageSize;
  } = {},
): Sharing {
  const { pages = PAGES, maxGrantFrames = 1, tracer = noTrace, pageSize } = options;
  const xen = bootTestMachine();
  const guest = addDomain(
    xen,
    2,
    { memory: pages * XEN_PAGE_SIZE, maxGrantFrames },
    tracer,
    undefined,
    pageSize,
  );
  const { backendPages } = options;
  const backend = addDomain(xen, 1, {
    maxMaptrackFrames: 1,
    ...(backendPages !== undefined && { memory: backendPages * XEN_PAGE_SIZE }),
  });
  const { id, ports } = guest;
  assert.equal(ports.grantTable.setVersion(options.version ?? 1), 0);
  const domain = {
    id,
    memory: ports.memory,
    table: ports.grantTable,
    references: new References(ports.grantTable),
    pools: new IdlePools(),
    tracer,
  };
  return {
    guest,
    backend: new Backend(backend, guest),
    domain,
    grants: new Grants(domain, backend.id),
    u8: ports.memory.region.u8,
  };
}

/** The DMA operations of device 0 in one mode. */
export function dmaOf(mode: GrantingMode, { grants }: Sharing, options?: ExposureOptions): DmaOperations {
  return grantDma(mode, grants, 0, options);
}

/** Allocates pages of the guest; a test that runs out of them is wrong. */
export function takePages({ domain }: Sharing, count: number): number {
  const address = domain.memory.allocatePages(count);
  assert.ok(address !== undefined);
  return address;
}

/** What is granted now, as the frames and whether only for reading. */
export function grantedFrames({ guest }: Sharing): { frame: number; readonly: boolean }[] {
  return sharedEntries(guest).map(({ frame, flags }: SharedEntry) => ({
    frame,
    readonly: (flags & GTF_READONLY) !== 0,
  }));
}

/** Nothing is granted, every reference is free or reserved, and the device holds nothing. */
export function checkNothingShared({ guest, domain, grants }: Sharing): void {
  const { entries, free, live, quarantined } = domain.references;
  assert.deepEqual(sharedEntries(guest), []);
  assert.deepEqual({ free, live, quarantined }, { free: entries - 8, live: 0, quarantined: 0 });
  assert.deepEqual([grants.live, grants.quarantined], [0, 0]);
}

/** A tracer that hands every event on by its name. */
export function traceTo(each: (name: string, ...figures: (number | boolean)[]) => void): Tracer {
  const names = Object.keys(noTrace).filter((name) => name !== 'enabled');
  const calls = names.map((name) => [name, (...figures: (number | boolean)[]) => each(name, ...figures)]);
  return { ...noTrace, ...Object.fromEntries(calls), enabled: true };
}
