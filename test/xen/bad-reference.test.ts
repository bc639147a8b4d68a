// A guest that gives its device an address which no grant stands behind: its own device breaks and says so, the
// backend lives on and serves the other device of the same guest, and the neighbour notices nothing.

import assert from 'node:assert/strict';
import { checkRaw, diskBefore, diskScript } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 74;

/** Registers of virtio-mmio (§4.2.2) of the first device, and what they take. */
const BASE = 0xd000_0000;
const at = (register: number): string => `0x${(BASE + register).toString(16)}`;
const [DRIVER_FEATURES, DRIVER_FEATURES_SEL, QUEUE_SEL, QUEUE_NUM, QUEUE_READY, QUEUE_NOTIFY, STATUS] = [
  0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x70,
].map(at);
const [DESCRIPTORS, DRIVER_AREA, DEVICE_AREA] = [0x80, 0x90, 0xa0];
/** ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK one after the other; DEVICE_NEEDS_RESET is 64. */
const [ACKNOWLEDGED, NEGOTIATED, RUNNING, NEEDS_RESET] = [3, 11, 15, 64];

/** An address with bit 63 whose grant reference was never handed out. */
const ring = (register: number): string => `
devmem ${at(register)} 32 0x00bad000
devmem ${at(register + 4)} 32 0x80000000`;

/** Takes the device from Linux's driver and sets it up by hand, with rings where nothing was granted. */
const SCRIPT = `
step 'take the device from its driver'
echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind
step 'rings that were never granted'
devmem ${STATUS} 32 0
devmem ${STATUS} 32 ${ACKNOWLEDGED}
devmem ${DRIVER_FEATURES_SEL} 32 1
devmem ${DRIVER_FEATURES} 32 3
devmem ${STATUS} 32 ${NEGOTIATED}
devmem ${QUEUE_SEL} 32 0
devmem ${QUEUE_NUM} 32 8
${[DESCRIPTORS, DRIVER_AREA, DEVICE_AREA].map(ring).join('')}
devmem ${QUEUE_READY} 32 1
devmem ${STATUS} 32 ${RUNNING}
devmem ${QUEUE_NOTIFY} 32 0
[ $(($(devmem ${STATUS} 32) & ${NEEDS_RESET})) != 0 ]
step 'the other device'
[ "$(dd if=/dev/hwrng bs=64 count=1 status=none | wc -c)" = 64 ]`;

xenTest('H1: a guest with a reference that was never granted breaks its own device only', async (xen) => {
  const bad = await xen.guest('bad', SCRIPT);
  const badImage = await xen.put('bad.img', diskBefore(1));
  const badBackend = await xen.backend(
    ...['--domain', `${bad.id}`],
    ...['--mmio', PLACES[0], '--disk', badImage],
    ...['--mmio', PLACES[1], '--rng'],
  );
  const image = await xen.put('good.img', diskBefore(SEED));
  const good = await xen.guest('good', diskScript('vda', SEED));
  const backend = await xen.backend('--domain', `${good.id}`, '--mmio', PLACES[0], '--disk', image);
  await good.start();
  await good.says(/^GRANTIO step write/);
  await bad.start();
  await bad.done();
  assert.equal(await badBackend.ended(), 0, 'the backend of the bad guest');
  await good.done();
  assert.equal(await backend.ended(), 0, 'the backend of the good guest');
  checkRaw(await xen.get(image), SEED);
});
