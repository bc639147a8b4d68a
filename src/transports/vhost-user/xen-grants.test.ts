// XEN_MMAP with memory that is mapped when it is used: the device reaches what the Xen domain granted, for as long as it
// uses it, through the same session, rings and device as without Xen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressHigh, grantAddressLow } from '../../abi/grant-address.ts';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../abi/split-ring.ts';
import * as user from '../../abi/vhost-user.ts';
import {
  VHOST_USER_PROTOCOL_F_XEN_MMAP,
  vhostUserXenRegion,
  XEN_MMAP_GRANT,
  XEN_MMAP_NO_ADVANCE_MAP,
} from '../../abi/vhost-user-xen.ts';
import { VIRTIO_BLK_S_IOERR, virtioBlkRequestHeader } from '../../abi/virtio-blk.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { BlkDevice } from '../../devices/blk.ts';
import { Grants } from '../../dma/grants.ts';
import { IdlePools } from '../../dma/idle-pools.ts';
import { References } from '../../dma/references.ts';
import { ProtocolViolation } from '../../errors.ts';
import { addDomain, bootTestMachine } from '../../hosts/model/domains.test.helper.ts';
import { GrantMemory } from '../../memory/grant-memory.ts';
import { MemoryStore } from '../../storage/memory-store.ts';
import { noTrace } from '../../trace.ts';
import { domainId } from '../../xen/ids.ts';
import { addressBytes, number, state, TestFrontend } from './frontend.test.helper.ts';
import { AVAILABLE, BUFFERS, DESCRIPTORS, GUEST_BYTES, TestGuest, USED } from './guest.test.helper.ts';

const SIZE = 8;
const USER = 0x7000_0000;
const XEN_MMAP = 1n << BigInt(VHOST_USER_PROTOCOL_F_XEN_MMAP);
const GUEST_DOMAIN = 2;

/** A guest on the embedded Xen that has granted the memory of its ring, and a frontend that speaks for it. */
function scene() {
  const xen = bootTestMachine();
  const { id, ports } = addDomain(xen, GUEST_DOMAIN);
  const backend = addDomain(xen, 1);
  const references = new References(ports.grantTable);
  const domain = { id, memory: ports.memory, table: ports.grantTable, references };
  const grants = new Grants({ ...domain, pools: new IdlePools(), tracer: noTrace }, backend.id);
  const ref = grants.share(0, GUEST_BYTES / XEN_PAGE_SIZE, false);
  const { grantMapper } = backend.ports;
  const bytes = Uint8Array.from({ length: 4096 }, (_, i) => (i >> 9) + 1);
  const disk = new BlkDevice(new MemoryStore(bytes), { queues: 1, queueSize: 128, id: 'xen' });
  const frontend = new TestFrontend(
    disk,
    { xen: true },
    undefined,
    (owner) => new GrantMemory(grantMapper, backend.id, domainId(owner), noTrace),
  );
  const features = frontend.askNumber(user.VHOST_USER_GET_FEATURES) & ~user.VHOST_F_LOG_ALL;
  frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(XEN_MMAP));
  frontend.send(user.VHOST_USER_SET_FEATURES, number(features));
  return { frontend, grantMapper, ref, guest: new TestGuest(SIZE, ports.memory.region) };
}

function region(ref: number, domid: number, flags: number): Uint8Array {
  return vhostUserXenRegion.make({
    guest_addressLow: grantAddressLow(ref, 0),
    guest_addressHigh: grantAddressHigh(ref),
    size: GUEST_BYTES,
    user_addressLow: USER,
    xen_mmap_flags: flags,
    domid,
  }).bytes;
}

function announce(frontend: TestFrontend, regions: readonly Uint8Array[]): void {
  const header = user.vhostUserMemoryHeader.make({ regions: regions.length }).bytes;
  const payload = new Uint8Array([...header, ...regions.flatMap((bytes) => [...bytes])]);
  const fds = regions.map(() => frontend.platform.descriptor());
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, payload, fds);
}

function startRing(frontend: TestFrontend): void {
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  const places = [DESCRIPTORS, AVAILABLE, USED].map((at) => USER + at) as [number, number, number];
  frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(0, ...places));
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [frontend.platform.descriptor()]);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
}

/** A read of the second sector into what is granted by references from `ref` on. */
function offerRead(guest: TestGuest, ref: number, dataRef = ref): Uint8Array {
  guest.region.u8.set(virtioBlkRequestHeader.make({ type: 0, sector: 1 }).bytes, BUFFERS);
  const pieces = [
    [ref, 0, 16, VIRTQ_DESC_F_NEXT],
    [dataRef, 512, 512, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE],
    [ref, 1024, 1, VIRTQ_DESC_F_WRITE],
  ];
  for (const [i, [owner, at, length, flags]] of pieces.entries()) {
    const page = owner + BUFFERS / XEN_PAGE_SIZE;
    guest.table.write(i, grantAddressLow(page, at), grantAddressHigh(page), length, flags, i + 1);
  }
  guest.publish(0);
  return guest.region.u8.subarray(BUFFERS + 512, BUFFERS + 1025);
}

test('XEN_MMAP: a block is read through grants, which are unmapped when it is there', () => {
  const { frontend, grantMapper, ref, guest } = scene();
  announce(frontend, [region(ref, GUEST_DOMAIN, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP)]);
  assert.equal(frontend.platform.mappings, 0, 'nothing is mapped in advance');
  assert.equal(grantMapper.live, 0);
  startRing(frontend);
  const ringPages = grantMapper.live;
  const read = offerRead(guest, ref);
  frontend.rings.kick(0);
  assert.ok(
    read.subarray(0, 512).every((byte) => byte === 2),
    'the sector',
  );
  assert.equal(read[512], 0, 'its status');
  assert.deepEqual(guest.reported(), [0]);
  assert.equal(grantMapper.live, ringPages, 'only the ring stays mapped');
  frontend.session.close();
  assert.equal(grantMapper.live, 0);
  assert.equal(frontend.platform.open.size, 0);
});

test('XEN_MMAP: a reference that was not granted fails its request alone', () => {
  const { frontend, grantMapper, ref, guest } = scene();
  announce(frontend, [region(ref, GUEST_DOMAIN, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP)]);
  startRing(frontend);
  const read = offerRead(guest, ref, 200);
  frontend.rings.kick(0);
  assert.equal(read[512], VIRTIO_BLK_S_IOERR);
  const again = offerRead(guest, ref);
  frontend.rings.kick(0);
  assert.equal(again[512], 0);
  frontend.session.close();
  assert.equal(grantMapper.live, 0);
});

test('T14: granted memory beside memory mapped in advance, or of two domains, is refused', () => {
  const { frontend, ref } = scene();
  const granted = region(ref, GUEST_DOMAIN, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP);
  const file = vhostUserXenRegion.make({ size: 8, user_addressLow: 0x1000 }).bytes;
  assert.throws(() => announce(frontend, [granted, file]), ProtocolViolation);
  const other = region(ref, 7, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP);
  assert.throws(() => announce(frontend, [granted, other]), ProtocolViolation);
  frontend.session.close();
  assert.equal(frontend.platform.mappings, 0);
  assert.equal(frontend.platform.open.size, 0);
});

test('XEN_MMAP: a ring that lies outside what was granted stops, and nothing stays mapped', () => {
  const { frontend, grantMapper, ref } = scene();
  announce(frontend, [region(ref, GUEST_DOMAIN, XEN_MMAP_GRANT | XEN_MMAP_NO_ADVANCE_MAP)]);
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(0, USER - 0x1000, USER, USER + 0x1000));
  const error = frontend.platform.descriptor();
  frontend.send(user.VHOST_USER_SET_VRING_ERR, number(0n), [error]);
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [frontend.platform.descriptor()]);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  assert.deepEqual(frontend.platform.signals, [error]);
  assert.equal(grantMapper.live, 0);
  frontend.session.close();
});
