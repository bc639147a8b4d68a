// Counts all that devices could leave behind on a machine, from scratch: not from what those who should have cleaned
// up believe, but from Xen's own tables, the store's nodes and the events of the trace.

import type { TraceConsumer, TraceEvent } from '../../src/audit/events.ts';
import type { DomainRecord } from '../../src/hosts/model/domain-record.ts';
import { Channels, PORT_FREE, stateOf } from '../../src/hosts/model/events/channels.ts';
import { mappingFlags } from '../../src/hosts/model/grants/maptrack.ts';
import { MAX_IOREQ_SERVERS } from '../../src/hosts/model/ioreq/machine-page.ts';
import { serverAt } from '../../src/hosts/model/ioreq/server-record.ts';
import { windowsOf } from '../../src/hosts/model/ioreq/windows.ts';
import { Machine as ModelMachine } from '../../src/hosts/model/state.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { GrantRef } from '../../src/xen/ids.ts';

const IO_RANGE_KINDS = 3;

/** What the trace says is going on: opened and not closed (invariant 11). */
export class OpenIntervals implements TraceConsumer {
  readonly #open = { grants: 0, needs: 0, privatePages: 0, mappings: 0, requests: 0 };

  consume(event: TraceEvent): void {
    const open = this.#open;
    if (event.kind === 'grant') open.grants += event.count;
    else if (event.kind === 'revoke') open.grants -= event.count;
    else if (event.kind === 'need') open.needs++;
    else if (event.kind === 'needEnd') open.needs--;
    else if (event.kind === 'privatePages') open.privatePages += event.count;
    else if (event.kind === 'privatePagesEnd') open.privatePages -= event.count;
    else if (event.kind === 'map') open.mappings++;
    else if (event.kind === 'unmap') open.mappings--;
    else if (event.kind === 'requestBegin') open.requests++;
    else if (event.kind === 'requestEnd') open.requests--;
  }

  get now(): Readonly<Record<string, number>> {
    return { ...this.#open };
  }
}

/** Everything that there is, by name. Two censuses are compared as values. */
export function census(machine: Machine, guests: readonly GuestDomain[], open: OpenIntervals) {
  const { xen, control } = machine;
  const model = new ModelMachine(xen.state);
  const { store } = control;
  return {
    free: xen.free,
    domains: [...domainsOf(machine)].map((domain) => domainCensus(model, domain)),
    guests: guests.map(guestCensus),
    nodes: [...store.paths()].sort(),
    storeUsage: [...store.recount()].map(([domain, usage]) => ({ id: domain.id, ...usage })),
    watches: store.watches.size,
    open: open.now,
  };
}

function* domainsOf({ xen }: Machine): Generator<DomainRecord> {
  for (let id = 0; id < 8; id++) {
    const domain = xen.domains.find(id);
    if (domain !== undefined) yield domain;
  }
}

/** What Xen's tables have for a domain. */
function domainCensus(model: ModelMachine, domain: DomainRecord) {
  const channels = new Channels(model);
  let ports = 0;
  for (let port = 0; port < channels.validPorts(domain); port++)
    if (stateOf(channels.binding(domain, port)) !== PORT_FREE) ports++;
  let mappings = 0;
  for (let handle = 0; handle < domain.maptrackLimit; handle++)
    if (mappingFlags(model.heap, domain, handle) !== 0) mappings++;
  return { id: domain.id, ports, mappings, ...serversCensus(model, domain) };
}

function serversCensus(model: ModelMachine, domain: DomainRecord) {
  const sum = { servers: 0, ranges: 0, windows: 0 };
  for (let id = 0; id < MAX_IOREQ_SERVERS; id++) {
    const server = serverAt(model, domain, id);
    if (server === undefined) continue;
    if (server.used) sum.servers++;
    for (let kind = 0; kind < IO_RANGE_KINDS; kind++) sum.ranges += server.ranges(kind)?.count ?? 0;
    sum.windows += [...windowsOf(model, server.windows)].length;
  }
  return sum;
}

/** What the guest's own kernel has given away. */
function guestCensus({ ports, heap, dma: { granting } }: GuestDomain) {
  const { references, table } = granting;
  let granted = 0;
  for (let ref = 0; ref < table.entries; ref++) if (!table.isFree(ref as GrantRef)) granted++;
  return {
    granted,
    entries: table.entries,
    live: references.live,
    quarantined: references.quarantined,
    pagesFree: ports.memory.pagesFree,
    objects: heap.live,
  };
}
