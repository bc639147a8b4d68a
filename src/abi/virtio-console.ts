// Console device: configuration space and control messages (virtio 1.3 §5.3).

import { struct } from './struct.ts';

const bit = (number: number): bigint => 1n << BigInt(number);

/** Columns and rows of configuration space are valid. */
export const VIRTIO_CONSOLE_F_SIZE = bit(0);
/** There are several ports, and a pair of control queues. */
export const VIRTIO_CONSOLE_F_MULTIPORT = bit(1);
/** Bytes can be written to configuration space before there are queues. */
export const VIRTIO_CONSOLE_F_EMERG_WRITE = bit(2);

/** §5.3.4 Configuration space. */
export const virtioConsoleConfig = struct('virtio_console_config', {
  cols: 'u16',
  rows: 'u16',
  max_nr_ports: 'u32',
  emerg_wr: 'u32',
});

/** §5.3.6.2 A control message; a size or a name may follow. */
export const virtioConsoleControl = struct('virtio_console_control', {
  id: 'u32',
  event: 'u16',
  value: 'u16',
});

/**
 * §5.3.6.2 What follows VIRTIO_CONSOLE_RESIZE. Linux had the two the other way round until 6.15, and with it some
 * devices have.
 */
export const virtioConsoleResize = struct('virtio_console_resize', {
  cols: 'u16',
  rows: 'u16',
});

/** The size of a terminal in characters, from 0 to 65535. */
export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

export const VIRTIO_CONSOLE_DEVICE_READY = 0;
export const VIRTIO_CONSOLE_DEVICE_ADD = 1;
export const VIRTIO_CONSOLE_DEVICE_REMOVE = 2;
export const VIRTIO_CONSOLE_PORT_READY = 3;
export const VIRTIO_CONSOLE_CONSOLE_PORT = 4;
export const VIRTIO_CONSOLE_RESIZE = 5;
export const VIRTIO_CONSOLE_PORT_OPEN = 6;
export const VIRTIO_CONSOLE_PORT_NAME = 7;

/** §5.3.2 The queue for control messages to the driver; the next one is for those from it. */
export const CONSOLE_CONTROL_QUEUE = 2;

/** §5.3.2 The queue for data to port `id` of the guest; the next one is for data from it. */
export function consoleQueueOf(id: number): number {
  return id === 0 ? 0 : 2 * id + 2;
}
