// The console device's layouts and numbers against the listings of virtio 1.3 §5.3.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_ID_CONSOLE } from './virtio.ts';
import * as abi from './virtio-console.ts';

test('§5.3.1 §5.3.2 device id 3; ports 0, 1, 2 have queues 0, 4, 6 and the next, control has 2 and 3', () => {
  assert.equal(VIRTIO_ID_CONSOLE, 3);
  assert.deepEqual([0, 1, 2, 30].map(abi.consoleQueueOf), [0, 4, 6, 62]);
  assert.equal(abi.CONSOLE_CONTROL_QUEUE, 2);
});

test('§5.3.3 feature bits', () => {
  const bits = [abi.VIRTIO_CONSOLE_F_SIZE, abi.VIRTIO_CONSOLE_F_MULTIPORT, abi.VIRTIO_CONSOLE_F_EMERG_WRITE];
  assert.deepEqual(bits, [1n, 2n, 4n]);
});

test('§5.3.4 struct virtio_console_config: le16 cols, le16 rows, le32 max_nr_ports, le32 emerg_wr', () => {
  assert.deepEqual(
    abi.virtioConsoleConfig.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['cols', 0, 2],
      ['rows', 2, 2],
      ['max_nr_ports', 4, 4],
      ['emerg_wr', 8, 4],
    ],
  );
  assert.equal(abi.virtioConsoleConfig.size, 12);
});

test('§5.3.6.2 struct virtio_console_control: le32 id, le16 event, le16 value', () => {
  assert.deepEqual(
    abi.virtioConsoleControl.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['id', 0, 4],
      ['event', 4, 2],
      ['value', 6, 2],
    ],
  );
  assert.equal(abi.virtioConsoleControl.size, 8);
});

test('§5.3.6.2 struct virtio_console_resize: le16 cols before le16 rows', () => {
  assert.deepEqual([...abi.virtioConsoleResize.make({ cols: 80, rows: 24 }).bytes], [80, 0, 24, 0]);
});

test('§5.3.6.2 events', () => {
  const events = [
    'DEVICE_READY',
    'DEVICE_ADD',
    'DEVICE_REMOVE',
    'PORT_READY',
    'CONSOLE_PORT',
    'RESIZE',
    'PORT_OPEN',
    'PORT_NAME',
  ];
  const declared = new Map<string, unknown>(Object.entries(abi));
  for (const [number, name] of events.entries())
    assert.equal(declared.get(`VIRTIO_CONSOLE_${name}`), number, name);
});
