// Register offsets and numbers against virtio 1.3 §2.1, §4.2.2, §5 and §6.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as mmio from './virtio-mmio.ts';
import * as virtio from './virtio.ts';

test('§4.2.2 MMIO registers, in the order of the table', () => {
  const declared = new Map<string, unknown>(Object.entries(mmio));
  const listed: [string, number][] = [
    ['MMIO_MAGIC_VALUE', 0x000],
    ['MMIO_VERSION', 0x004],
    ['MMIO_DEVICE_ID', 0x008],
    ['MMIO_VENDOR_ID', 0x00c],
    ['MMIO_DEVICE_FEATURES', 0x010],
    ['MMIO_DEVICE_FEATURES_SEL', 0x014],
    ['MMIO_DRIVER_FEATURES', 0x020],
    ['MMIO_DRIVER_FEATURES_SEL', 0x024],
    ['MMIO_QUEUE_SEL', 0x030],
    ['MMIO_QUEUE_SIZE_MAX', 0x034],
    ['MMIO_QUEUE_SIZE', 0x038],
    ['MMIO_QUEUE_READY', 0x044],
    ['MMIO_QUEUE_NOTIFY', 0x050],
    ['MMIO_INTERRUPT_STATUS', 0x060],
    ['MMIO_INTERRUPT_ACK', 0x064],
    ['MMIO_STATUS', 0x070],
    ['MMIO_QUEUE_DESC_LOW', 0x080],
    ['MMIO_QUEUE_DESC_HIGH', 0x084],
    ['MMIO_QUEUE_DRIVER_LOW', 0x090],
    ['MMIO_QUEUE_DRIVER_HIGH', 0x094],
    ['MMIO_QUEUE_DEVICE_LOW', 0x0a0],
    ['MMIO_QUEUE_DEVICE_HIGH', 0x0a4],
    ['MMIO_SHM_LEN_LOW', 0x0b0],
    ['MMIO_SHM_LEN_HIGH', 0x0b4],
    ['MMIO_SHM_BASE_LOW', 0x0b8],
    ['MMIO_SHM_BASE_HIGH', 0x0bc],
    ['MMIO_CONFIG_GENERATION', 0x0fc],
    ['MMIO_CONFIG', 0x100],
  ];
  for (const [name, offset] of listed) assert.equal(declared.get(name), offset, name);
});

test('§4.2.2 magic is "virt", little endian; version 2; interrupt bits 0 and 1', () => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, mmio.MMIO_MAGIC, true);
  assert.equal(new TextDecoder().decode(bytes), 'virt');
  assert.equal(mmio.MMIO_VERSION_2, 2);
  assert.deepEqual([mmio.MMIO_INTERRUPT_VRING, mmio.MMIO_INTERRUPT_CONFIG], [1, 2]);
  assert.equal(mmio.MMIO_WINDOW_SIZE, 0x200);
});

test('§2.1 status bits', () => {
  assert.deepEqual(
    [
      virtio.VIRTIO_STATUS_ACKNOWLEDGE,
      virtio.VIRTIO_STATUS_DRIVER,
      virtio.VIRTIO_STATUS_DRIVER_OK,
      virtio.VIRTIO_STATUS_FEATURES_OK,
      virtio.VIRTIO_STATUS_DEVICE_NEEDS_RESET,
      virtio.VIRTIO_STATUS_FAILED,
    ],
    [1, 2, 4, 8, 64, 128],
  );
});

test('§6 reserved feature bits, and §5 device ids', () => {
  assert.equal(virtio.VIRTIO_F_INDIRECT_DESC, 1n << 28n);
  assert.equal(virtio.VIRTIO_F_EVENT_IDX, 1n << 29n);
  assert.equal(virtio.VIRTIO_F_VERSION_1, 1n << 32n);
  assert.equal(virtio.VIRTIO_F_ACCESS_PLATFORM, 1n << 33n);
  assert.deepEqual([virtio.VIRTIO_ID_BLOCK, virtio.VIRTIO_ID_RNG], [2, 4]);
});
