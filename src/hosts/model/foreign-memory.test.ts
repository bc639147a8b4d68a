// Access without grants: all of a guest's memory, for its device model only, and for as long as it is mapped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { noTrace, type Tracer } from '../../trace.ts';
import { domainId } from '../../xen/ids.ts';
import { ARCHITECTURES } from './address-map.ts';
import { Xen } from './xen.ts';

const MIB = 2 ** 20;
const BACKEND = domainId(1);
const GUEST = domainId(2);
const STRANGER = domainId(3);
const noWait = () => false;

function scene(architecture: (typeof ARCHITECTURES)[number] = 'arm') {
  const xen = Xen.boot(16 * MIB, 16 * MIB, false);
  for (const id of [BACKEND, GUEST, STRANGER]) xen.createDomain(id, { memory: MIB, architecture });
  xen.nameDeviceModel(GUEST, BACKEND);
  const events: (string | number)[][] = [];
  const tracer: Tracer = {
    ...noTrace,
    enabled: true,
    reach: (...fields) => events.push(['reach', ...fields]),
    reachEnd: (...fields) => events.push(['reachEnd', ...fields]),
  };
  return { xen, events, backend: xen.ports(BACKEND, noWait, tracer), guest: xen.ports(GUEST, noWait) };
}

for (const architecture of ARCHITECTURES)
  test(`a device model on ${architecture} sees every byte of the guest where the guest has it`, () => {
    const { backend, guest } = scene(architecture);
    const { region, base } = backend.mapForeignMemory(GUEST);
    assert.equal(region.byteLength, MIB);
    const page = guest.memory.allocatePages(1)!;
    guest.memory.bytes(page, 6).set(new TextEncoder().encode('secret'));
    assert.equal(Buffer.from(region.u8.subarray(page - base, page - base + 6)).toString(), 'secret');
    region.u8[page - base] = 0x53;
    assert.equal(guest.memory.bytes(page, 1)[0], 0x53);
  });

test('the pages stand in the device model’s own address space, until it lets go of them', () => {
  const { xen, backend } = scene();
  const before = [...xen.domain(BACKEND).physmap.entries()].length;
  const [one, other] = [backend.mapForeignMemory(GUEST), backend.mapForeignMemory(GUEST)];
  assert.equal([...xen.domain(BACKEND).physmap.entries()].length, before + (2 * MIB) / XEN_PAGE_SIZE);
  one.close();
  other.close();
  assert.equal([...xen.domain(BACKEND).physmap.entries()].length, before);
});

test('that all of the memory can be reached is reported from before it can until after it cannot', () => {
  const { xen, backend, events } = scene();
  const { close } = backend.mapForeignMemory(GUEST);
  close();
  const frame = xen.domain(GUEST).map.ram;
  const range = [BACKEND, GUEST, frame, MIB / XEN_PAGE_SIZE];
  assert.deepEqual(events, [
    ['reach', ...range],
    ['reachEnd', ...range],
  ]);
});

test('G5: a domain that the toolstack has not named as device model maps nothing', () => {
  const { xen } = scene();
  const stranger = xen.ports(STRANGER, noWait);
  const before = [...xen.domain(STRANGER).physmap.entries()].length;
  assert.throws(
    () => stranger.mapForeignMemory(GUEST),
    /domain 3 cannot map the memory of domain 2: the toolstack/,
  );
  assert.equal([...xen.domain(STRANGER).physmap.entries()].length, before);
});

test('a guest that has given a page away is not mapped at all, rather than in part', () => {
  const { xen, backend, events } = scene();
  const guest = xen.domain(GUEST);
  const before = [...xen.domain(BACKEND).physmap.entries()].length;
  guest.physmap.remove(guest.map.ram + 7);
  assert.throws(() => backend.mapForeignMemory(GUEST), /frame 0x40007 is not the guest's any more/);
  assert.equal([...xen.domain(BACKEND).physmap.entries()].length, before);
  assert.deepEqual(
    events.map(([kind]) => kind),
    ['reach', 'reachEnd'],
  );
});

test('the memory of a guest that dies is not used again before its device model lets go of it', () => {
  const { xen, backend } = scene();
  const { close } = backend.mapForeignMemory(GUEST);
  const before = xen.free.frames;
  for (const _ of xen.destroyDomain(GUEST));
  assert.ok(xen.domains.find(GUEST) !== undefined, 'its id is not free either');
  const between = xen.free.frames;
  close();
  assert.equal(xen.domains.find(GUEST), undefined);
  assert.ok(xen.free.frames > between && xen.free.frames >= before + MIB / XEN_PAGE_SIZE);
});
