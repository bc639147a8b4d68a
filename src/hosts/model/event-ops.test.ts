// Event channel operations: what each answers, what a refusal leaves, and the limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EVTCHN_2L_PORTS } from '../../abi/event-channel.ts';
import type { DomainId, EventPort } from '../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from './domains.test.helper.ts';
import { EINVAL, ENOSPC, ESRCH } from './errno.ts';

/** Ports that a domain can have: port 0 is never given out. */
const PORTS = EVTCHN_2L_PORTS - 1;
const NOWHERE = 77 as DomainId;

function machine() {
  const xen = bootTestMachine();
  const [one, two, three] = [1, 2, 3].map((id) => addDomain(xen, id));
  return { xen, one, two, three };
}

const allocate = (local: TestDomain, remote: TestDomain) => local.ports.events.allocateUnbound(remote.id);
const bind = (local: TestDomain, remote: TestDomain, port: number) =>
  local.ports.events.bindInterdomain(remote.id, port as EventPort);

/** The words of every port of a domain. */
function portState({ xen, record }: TestDomain): Int32Array {
  return new Int32Array(xen.state.heap).slice(record.eventEntry(0), record.eventEntry(EVTCHN_2L_PORTS));
}

const wrongPorts = [0, -1, EVTCHN_2L_PORTS, 2 ** 31, 0xffff_ffff, Number.NaN, 5];

for (const port of wrongPorts) {
  test(`H23: send, close and bind of port ${port}, which is out of range or not allocated, are EINVAL`, () => {
    const { one, two } = machine();
    const before = [portState(one), portState(two)];
    assert.equal(one.ports.events.send(port as EventPort), EINVAL);
    assert.equal(one.ports.events.close(port as EventPort), EINVAL);
    assert.equal(bind(one, two, port), EINVAL);
    assert.deepEqual([portState(one), portState(two)], before);
  });
}

test('bind to an unknown domain is ESRCH', () => {
  const { one } = machine();
  const before = portState(one);
  assert.equal(one.ports.events.bindInterdomain(NOWHERE, 1 as EventPort), ESRCH);
  assert.deepEqual(portState(one), before);
});

test('a port is bound only by the domain that it was allocated for, once, and from both ends it is the same', () => {
  const { one, two, three } = machine();
  const far = allocate(one, two);
  const before = [portState(one), portState(three)];
  assert.equal(bind(three, one, far), EINVAL);
  assert.deepEqual([portState(one), portState(three)], before);
  const near = bind(two, one, far);
  assert.ok(near > 0);
  assert.equal(bind(two, one, far), EINVAL);
  // The end of an interdomain channel is not a port that somebody may bind to.
  assert.equal(bind(one, two, near), EINVAL);
  assert.equal(two.ports.events.send(near), 0);
  assert.equal(one.ports.events.send(far), 0);
});

test('a domain may join two ports of its own', () => {
  const { one } = machine();
  const far = allocate(one, one);
  const near = bind(one, one, far);
  assert.ok(near > 0 && near !== far);
  let events = 0;
  one.ports.events.onEvent(far, () => events++);
  one.ports.events.poll();
  one.ports.events.send(near);
  one.ports.events.poll();
  assert.equal(events, 1);
});

test('sending to a port that nobody has bound yet succeeds and does nothing', () => {
  const { one, two } = machine();
  assert.equal(one.ports.events.send(allocate(one, two)), 0);
  assert.ok(!one.ports.events.pending && !two.ports.events.pending);
});

test('closing one end leaves the other unbound for the same domain, and closing that frees it', () => {
  const { one, two } = machine();
  const fresh = [portState(one), portState(two)];
  const far = allocate(one, two);
  const near = bind(two, one, far);
  assert.equal(two.ports.events.close(near), 0);
  assert.equal(two.ports.events.send(near), EINVAL);
  assert.equal(two.ports.events.close(near), EINVAL);
  assert.equal(one.ports.events.send(far), 0);
  const again = bind(two, one, far);
  assert.ok(again > 0);
  assert.equal(one.ports.events.close(far), 0);
  assert.equal(two.ports.events.send(again), 0);
  assert.equal(two.ports.events.close(again), 0);
  assert.deepEqual([portState(one), portState(two)], fresh);
});

test('H26: a domain has 4095 ports; then every call that needs one is ENOSPC and nobody else is touched', () => {
  const { one, two, three } = machine();
  const far = allocate(two, one);
  const given = Array.from({ length: PORTS }, () => allocate(one, two));
  assert.equal(new Set(given).size, PORTS);
  assert.deepEqual([Math.min(...given), Math.max(...given)], [1, PORTS]);
  const before = [one, two, three].map(portState);
  assert.equal(allocate(one, two), ENOSPC);
  assert.equal(bind(one, two, far), ENOSPC);
  assert.deepEqual([one, two, three].map(portState), before);
  assert.ok(bind(three, two, allocate(two, three)) > 0);
  assert.equal(one.ports.events.close(given[100]), 0);
  assert.equal(bind(one, two, far), given[100]);
});

type Operation = {
  kind: 'allocate' | 'bind' | 'close' | 'send';
  local: number;
  remote: number;
  port: number;
};

test('6: after any operations ports form pairs, and a refused operation has changed nothing', () => {
  const port = fc.integer({ min: 0, max: 5 });
  const operation: fc.Arbitrary<Operation> = fc.record({
    kind: fc.constantFrom('allocate', 'bind', 'bind', 'close', 'send'),
    local: fc.nat(2),
    remote: fc.nat(2),
    port,
  });
  fc.assert(
    fc.property(fc.array(operation, { minLength: 10, maxLength: 60 }), (operations) => {
      const { one, two, three } = machine();
      const domains = [one, two, three];
      for (const each of operations) {
        const before = domains.map(portState);
        const status = run(domains, each);
        if (status < 0) assert.deepEqual(domains.map(portState), before);
        checkPairs(domains);
      }
    }),
    { seed: 26, numRuns: 30 },
  );
});

function run(domains: TestDomain[], { kind, local, remote, port }: Operation): number {
  const { events } = domains[local].ports;
  if (kind === 'allocate') return events.allocateUnbound(domains[remote].id);
  if (kind === 'bind') return events.bindInterdomain(domains[remote].id, port as EventPort);
  return kind === 'close' ? events.close(port as EventPort) : events.send(port as EventPort);
}

/** Whoever is joined to a port is a port that is joined to it. */
function checkPairs(domains: TestDomain[]): void {
  for (const { xen, id, record } of domains) {
    const heap = new Int32Array(xen.state.heap);
    for (let port = 0; port < 64; port++) {
      const [state, remote, remotePort] = heap.subarray(record.eventEntry(port), record.eventEntry(port) + 3);
      if (state !== 2) continue;
      const far = heap.subarray(domains[remote - 1].record.eventEntry(remotePort));
      assert.deepEqual([...far.subarray(0, 3)], [2, id, port], `port ${port} of domain ${id}`);
    }
  }
}
