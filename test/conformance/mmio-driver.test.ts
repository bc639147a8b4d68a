// The driver's side of the MMIO transport against virtio 1.3 §4.2.2.2, §4.2.3 and §2.5.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { struct } from '../../src/abi/struct.ts';
import * as mmio from '../../src/abi/virtio-mmio.ts';
import { MmioTransport } from '../../src/transports/virtio-mmio/driver.ts';
import { DeviceRefused } from '../../src/virtio/negotiate.ts';
import type { MmioBus } from '../../src/xen/mmio.ts';

const BASE = 0x5000;

/** Registers that are memory, and a record of how they were accessed. */
class FakeBus implements MmioBus {
  readonly accesses: { readonly at: number; readonly size: number; readonly value?: number }[] = [];
  readonly words = new Map<number, number>([
    [mmio.MMIO_MAGIC_VALUE, mmio.MMIO_MAGIC],
    [mmio.MMIO_VERSION, 2],
    [mmio.MMIO_DEVICE_ID, 2],
  ]);
  readonly config = Uint8Array.from({ length: 256 }, (_, i) => i);
  onRead: (register: number) => void = () => undefined;

  read(address: number, size: number): number {
    const at = address - BASE;
    this.accesses.push({ at, size });
    this.onRead(at);
    if (at < mmio.MMIO_CONFIG) return this.words.get(at) ?? 0;
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.config[at - mmio.MMIO_CONFIG + i] << (8 * i);
    return value;
  }

  write(address: number, size: number, value: number): void {
    const at = address - BASE;
    this.accesses.push({ at, size, value });
    this.words.set(at, value);
  }

  /** Offset and value of each write, and of each read without a value, since the last call. */
  take(): (number | undefined)[][] {
    return this.accesses.splice(0).map(({ at, value }) => (value === undefined ? [at] : [at, value]));
  }
}

function start(): { bus: FakeBus; transport: MmioTransport } {
  const bus = new FakeBus();
  const transport = new MmioTransport(bus, BASE);
  bus.take();
  return { bus, transport };
}

test('§4.2.3.1.1 MagicValue, Version and DeviceID are read first, in this order, and nothing else', () => {
  const bus = new FakeBus();
  assert.equal(new MmioTransport(bus, BASE).deviceId, 2);
  assert.deepEqual(bus.take(), [[0x000], [0x004], [0x008]]);
});

for (const [register, value] of [
  [mmio.MMIO_MAGIC_VALUE, 0],
  [mmio.MMIO_MAGIC_VALUE, 0x74726977],
  [mmio.MMIO_VERSION, 1],
  [mmio.MMIO_VERSION, 3],
]) {
  test(`§4.2.2.2 a device with 0x${value.toString(16)} at 0x${register.toString(16)} is left alone`, () => {
    const bus = new FakeBus();
    bus.words.set(register, value);
    assert.throws(() => new MmioTransport(bus, BASE), DeviceRefused);
    assert.ok(bus.accesses.every(({ at }) => at <= register));
  });
}

test('§4.2.2.2 control registers are accessed as aligned 32-bit words, and each as it may be', () => {
  const { bus, transport } = start();
  transport.readFeatures();
  transport.writeFeatures(0x1234_5678_9abc_def0n);
  transport.queueSizeMax(1);
  transport.enableQueue(1, 8, {
    descriptorLow: 1,
    descriptorHigh: 2,
    driverLow: 3,
    driverHigh: 4,
    deviceLow: 5,
    deviceHigh: 6,
  });
  transport.notify(1);
  transport.writeStatus(transport.readStatus());
  transport.takeInterrupt();
  const readable = new Set([0x010, 0x034, 0x044, 0x060, 0x070]);
  const writable = new Set([
    ...[0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064, 0x070],
    ...[0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4],
  ]);
  for (const { at, size, value } of bus.accesses) {
    assert.equal(size, 4);
    assert.ok((value === undefined ? readable : writable).has(at), `register 0x${at.toString(16)}`);
  }
});

test('§4.2.2.2 a feature word is selected before it is read or written', () => {
  const { bus, transport } = start();
  transport.readFeatures();
  assert.deepEqual(bus.take(), [[0x014, 0], [0x010], [0x014, 1], [0x010]]);
  transport.writeFeatures(0x1234_5678_9abc_def0n);
  assert.deepEqual(bus.take(), [
    [0x024, 0],
    [0x020, 0x9abc_def0],
    [0x024, 1],
    [0x020, 0x1234_5678],
  ]);
});

test('§4.2.3.2 a queue is selected, sized and placed before it is made ready', () => {
  const { bus, transport } = start();
  const addresses = { descriptorLow: 1, descriptorHigh: 2, driverLow: 3, driverHigh: 4 };
  transport.enableQueue(5, 64, { ...addresses, deviceLow: 5, deviceHigh: 6 });
  const writes = bus.take();
  assert.deepEqual(writes[0], [0x030, 5]);
  assert.deepEqual(writes.at(-1), [0x044, 1]);
  assert.deepEqual(
    writes.slice(1, -1).sort(([a], [b]) => a! - b!),
    [
      [0x038, 64],
      [0x080, 1],
      [0x084, 2],
      [0x090, 3],
      [0x094, 4],
      [0x0a0, 5],
      [0x0a4, 6],
    ],
  );
});

test('§4.2.2.2 configuration fields are read as wide as they are, 64 bits as two words', () => {
  const { bus, transport } = start();
  const layout = struct('config', {
    long: 'u64',
    word: 'u32',
    short: 'u16',
    byte: 'u8',
    more: { bytes: 3 },
  });
  const bytes = transport.readConfig(layout.fields);
  assert.deepEqual(bytes, bus.config.slice(0, layout.size));
  assert.deepEqual(
    bus.accesses
      .filter(({ at }) => at >= mmio.MMIO_CONFIG)
      .map(({ at, size }) => [at - mmio.MMIO_CONFIG, size]),
    [
      [0, 4],
      [4, 4],
      [8, 4],
      [12, 2],
      [14, 1],
      [15, 1],
      [16, 1],
      [17, 1],
    ],
  );
});

test('§2.5.1 only the fields that are asked for are read', () => {
  const { bus, transport } = start();
  const layout = struct('config', { first: 'u32', second: 'u32', third: 'u16' });
  transport.readConfig([layout.fields[0], layout.fields[2]]);
  const places = bus.accesses
    .filter(({ at }) => at >= mmio.MMIO_CONFIG)
    .map(({ at }) => at - mmio.MMIO_CONFIG);
  assert.deepEqual(places, [0, 8]);
});

test('§2.5.1 a configuration that changes while it is read is read again', () => {
  const { bus, transport } = start();
  const { fields } = struct('config', { first: 'u32', second: 'u32' });
  let generation = 1;
  bus.words.set(mmio.MMIO_CONFIG_GENERATION, generation);
  let changes = 3;
  bus.onRead = (register) => {
    if (register !== mmio.MMIO_CONFIG || changes-- <= 0) return;
    bus.config.fill(100 + changes, 4, 8);
    bus.words.set(mmio.MMIO_CONFIG_GENERATION, ++generation);
  };
  assert.deepEqual([...transport.readConfig(fields)], [0, 1, 2, 3, 100, 100, 100, 100]);
});

test('§4.2.3.4.1 an interrupt is acknowledged with the bits that were there, and not without any', () => {
  const { bus, transport } = start();
  assert.equal(transport.takeInterrupt(), 0);
  assert.deepEqual(bus.take(), [[0x060]]);
  bus.words.set(mmio.MMIO_INTERRUPT_STATUS, 3);
  assert.equal(transport.takeInterrupt(), 3);
  assert.deepEqual(bus.take(), [[0x060], [0x064, 3]]);
});

test('§4.2.2.2 undefined bits of InterruptStatus are neither reported nor acknowledged', () => {
  const { bus, transport } = start();
  bus.words.set(mmio.MMIO_INTERRUPT_STATUS, 0xffff_fffd);
  assert.equal(transport.takeInterrupt(), 1);
  assert.deepEqual(bus.take(), [[0x060], [0x064, 1]]);
  bus.words.set(mmio.MMIO_INTERRUPT_STATUS, 0xffff_fffc);
  assert.equal(transport.takeInterrupt(), 0);
  assert.deepEqual(bus.take(), [[0x060]]);
});
