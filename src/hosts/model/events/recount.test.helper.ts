// A recount from scratch of what Xen knows of event channels, and the whole of it to compare before and after.

import assert from 'node:assert/strict';
import { NR_VIRQS } from '../../../abi/event-channel.ts';
import type { TestDomain } from '../domains.test.helper.ts';
import { Machine } from '../state.ts';
import {
  ACTIVE_PORTS,
  Channels,
  CONSUMER_XEN,
  joinedPort,
  joinedRemote,
  joinedTo,
  LOWEST_FREE,
  PORT_FREE,
  PORT_INTERDOMAIN,
  PORT_RESERVED,
  PORT_VCPU,
  PORT_VIRQ,
  PORTS_PER_PAGE,
  stateOf,
  virqOf,
  XEN_PORTS,
} from './channels.ts';
import { isPerProcessor } from './virqs.ts';

/** Words of a domain's part, without the hint at where to look for a free port. */
const PART_WORDS = 16;
/** Words of a port's record. */
const RECORD_WORDS = 8;

const channelsOf = ({ xen }: TestDomain) => new Channels(new Machine(xen.state));

/** All that Xen has of the domains' event channels, and the page by which a guest sees its own. */
export function eventState(domains: readonly TestDomain[]): unknown {
  return domains.map((domain) => {
    const { heap } = channelsOf(domain);
    const { record, xen } = domain;
    const part = [...heap.subarray(record.eventsWord, record.eventsWord + PART_WORDS)];
    part[LOWEST_FREE] = 0;
    const details = heap.slice(part[1], part[1] + 1024);
    const sharedInfo = new Int32Array(xen.state.memory, record.sharedInfo, 1024).slice();
    return { part, ports: portState(domain), details, sharedInfo };
  });
}

/** The records of every port of a domain. */
export function portState(domain: TestDomain): Int32Array {
  const channels = channelsOf(domain);
  const ports = channels.validPorts(domain.record);
  const state = new Int32Array(ports * RECORD_WORDS);
  for (let port = 0; port < ports; port++) {
    const entry = channels.entry(domain.record, port);
    state.set(channels.heap.subarray(entry, entry + RECORD_WORDS), port * RECORD_WORDS);
  }
  return state;
}

/** Whether all counts, lists and pairs are what the ports say. */
export function recount(domains: readonly TestDomain[]): void {
  for (const domain of domains) {
    recountPorts(domain, domains);
    recountVirqs(domain);
  }
}

function recountPorts(domain: TestDomain, domains: readonly TestDomain[]): void {
  const channels = channelsOf(domain);
  const { record, id } = domain;
  const part = channels.heap.subarray(record.eventsWord, record.eventsWord + PART_WORDS);
  const valid = channels.validPorts(record);
  // It has gone.
  if (valid === 0) return;
  const bindings = Array.from({ length: valid }, (_, port) => channels.binding(record, port));
  assert.equal(stateOf(bindings[0]), PORT_RESERVED);
  const used = bindings.filter((each) => stateOf(each) > PORT_RESERVED);
  assert.equal(part[ACTIVE_PORTS], used.length, `open ports of domain ${id}`);
  assert.equal(
    part[XEN_PORTS],
    used.filter((each) => each & CONSUMER_XEN).length,
    `Xen's ports of domain ${id}`,
  );
  assert.ok(bindings.slice(1, part[LOWEST_FREE]).every((each) => stateOf(each) !== PORT_FREE));
  assert.equal(valid % PORTS_PER_PAGE, 0);
  const directory = channels.heap.subarray(part[0], part[0] + 1024);
  assert.equal(directory.filter((page) => page !== 0).length, valid / PORTS_PER_PAGE);
  bindings.forEach((binding, port) => {
    assert.ok(channels.heap[channels.entry(record, port) + PORT_VCPU] < record.vcpus);
    if (stateOf(binding) !== PORT_INTERDOMAIN) return;
    const remote = domains.find((each) => each.id === joinedRemote(binding));
    assert.ok(remote, `port ${port} of domain ${id} is joined to a domain that is there`);
    const far = channels.binding(remote.record, joinedPort(binding)) & ~CONSUMER_XEN;
    assert.equal(far, joinedTo(id, port), `whom port ${port} of domain ${id} is joined to`);
  });
}

function recountVirqs(domain: TestDomain): void {
  const channels = channelsOf(domain);
  const { record } = domain;
  const bound = new Map<string, number>();
  for (let port = 0; port < channels.validPorts(record); port++) {
    const binding = channels.binding(record, port);
    if (stateOf(binding) !== PORT_VIRQ) continue;
    const virq = virqOf(binding);
    const vcpu = isPerProcessor(virq) ? channels.heap[channels.entry(record, port) + PORT_VCPU] : 0;
    bound.set(`${vcpu} ${virq}`, port);
  }
  for (let vcpu = 0; vcpu < record.vcpus; vcpu++)
    for (let virq = 0; virq < NR_VIRQS; virq++)
      assert.equal(channels.heap[channels.virqWord(record, vcpu, virq)], bound.get(`${vcpu} ${virq}`) ?? 0);
}
