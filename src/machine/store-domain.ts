// Domain 0 as the keeper of xenstore: it maps the page that each domain shares with the store, by the grant
// that the domain's builder made for it, and serves the ring whenever the domain signals. The other end is
// store-link.ts; whoever runs domain 0 calls `poll` (machine.ts, parallel/store-loop.ts).

import { GNTTAB_RESERVED_XENSTORE, MAPTRACK_HANDLES_PER_FRAME } from '../abi/grant.ts';
import { regionOver } from '../abi/region.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { assert } from '../errors.ts';
import type { Architecture } from '../hosts/model/address-map.ts';
import type { DomainPorts, Xen } from '../hosts/model/xen.ts';
import type { WaitWhile } from '../hosts/model/waiting.ts';
import { type DomainId, domainId, type EventPort, type GrantRef } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { localXenstore } from '../xenstore/local.ts';
import { RingServer } from '../xenstore/ring.ts';
import type { Store } from '../xenstore/store.ts';
import type { StoreLink } from './store-link.ts';

const CONTROL = domainId(0);
/** Domain 0 needs no memory of its own here: its programs are this one. */
const MEMORY = XEN_PAGE_SIZE;
/** Pages that it maps: one for each other domain. */
const MAPPINGS = 256;

/** One domain's ring as the store sees it. */
interface Ring {
  readonly server: RingServer;
  /** When it is to be polled, by the store's clock: 0 is now, Infinity when the domain signals. */
  due: number;
}

/** Domain 0 and the store. */
export class StoreDomain {
  readonly store: Store;
  /** The store as the toolstack uses it, which lives in domain 0 too. */
  readonly tools: Xenstore;
  readonly ports: DomainPorts;
  readonly #rings = new Map<DomainId, Ring>();
  /** Called when `poll` is to be called although no event has come. */
  onDue: () => void = () => undefined;

  /** Creates domain 0 of `xen`. */
  constructor(xen: Xen, architecture: Architecture, store: Store, waitWhile: WaitWhile) {
    xen.createDomain(CONTROL, {
      architecture,
      memory: MEMORY,
      maxGrantFrames: 1,
      maxMaptrackFrames: MAPPINGS / MAPTRACK_HANDLES_PER_FRAME,
    });
    this.ports = xen.ports(CONTROL, waitWhile);
    this.store = store;
    this.tools = localXenstore(store, CONTROL);
  }

  /**
   * Connects a new domain with the store, as its builder does before it runs for the first time: the page that
   * its address map has for the store is granted to domain 0.
   *
   * @param guest the ports of that domain
   * @returns what the domain has to be told
   */
  introduce(guest: DomainPorts): StoreLink {
    assert(!this.#rings.has(guest.id), 'a domain is introduced once', guest.id);
    guest.grantTable.grant(GNTTAB_RESERVED_XENSTORE as GrantRef, 1, CONTROL, guest.storeFrame, false);
    const port = guest.events.allocateUnbound(CONTROL);
    this.#serve(guest.id, port);
    return { port };
  }

  /** Ends the store's service to a domain that is no more, and all that the store has of it. */
  release(id: DomainId): void {
    const domain = this.store.domains.find(id);
    if (domain !== undefined) this.store.release(domain);
  }

  /** Serves every ring that is due, a bounded amount each. Returns whether there was one. */
  poll(): boolean {
    this.ports.events.poll();
    const now = this.store.now();
    let worked = false;
    for (const ring of this.#rings.values()) {
      if (ring.due > now) continue;
      // Before the poll: what it makes due again stays so.
      ring.due = Number.POSITIVE_INFINITY;
      const delay = ring.server.poll();
      if (delay !== undefined) ring.due = Math.min(ring.due, now + delay);
      worked = true;
    }
    return worked;
  }

  /** Milliseconds after which `poll` has to be called even if no event comes; Infinity if never. */
  get delay(): number {
    let due = Number.POSITIVE_INFINITY;
    for (const ring of this.#rings.values()) due = Math.min(due, ring.due);
    return Math.max(0, due - this.store.now());
  }

  #serve(id: DomainId, remotePort: EventPort): void {
    const { grantMapper, events } = this.ports;
    const handle = grantMapper.map(id, GNTTAB_RESERVED_XENSTORE, false);
    assert(handle >= 0, 'the builder has granted the page of the store', handle, 0);
    const { buffer, byteOffset } = grantMapper.region(handle);
    const page = regionOver(buffer, byteOffset + grantMapper.offset(handle), XEN_PAGE_SIZE);
    const port = events.bindInterdomain(id, remotePort);
    assert(port > 0, 'the builder has made an event channel for the store', port, 1);
    const server = new RingServer(page, this.store, this.store.introduce(id), {
      notify: () => events.send(port),
      wake: () => {
        ring.due = 0;
        this.onDue();
      },
      released: () => {
        this.#rings.delete(id);
        events.close(port);
        grantMapper.unmap(handle);
      },
    });
    const ring: Ring = { server, due: 0 };
    this.#rings.set(id, ring);
    events.onEvent(port, () => {
      ring.due = 0;
    });
  }
}
