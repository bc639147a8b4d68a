// Event channel operations: what each answers, what a refusal leaves, and the limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EVTCHN_2L_PORTS } from '../../../abi/event-channel.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import { addDomain, bootTestMachine, type TestDomain } from '../domains.test.helper.ts';
import { EINVAL, ENOSPC, ESRCH } from '../errno.ts';
import { portState, recount } from './recount.test.helper.ts';

/** Ports that a domain can have: port 0 is never given out. */
const PORTS = EVTCHN_2L_PORTS - 1;
const NOWHERE = 77 as DomainId;

function machine() {
  const xen = bootTestMachine();
  const [one, two, three] = [1, 2, 3].map((id) => addDomain(xen, id, { maxEventChannels: PORTS }));
  return { xen, one, two, three };
}

const allocate = (local: TestDomain, remote: TestDomain) => local.ports.events.allocateUnbound(remote.id);
const bind = (local: TestDomain, remote: TestDomain, port: number) =>
  local.ports.events.bindInterdomain(remote.id, port as EventPort);

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
  recount([one, two, three]);
});
