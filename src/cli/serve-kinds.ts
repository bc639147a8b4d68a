// The kinds of devices that `grantio serve` knows: their options, what they can do for those who start backend
// programs (QEMU's docs/interop/vhost-user.json), and which device of QEMU connects to them. A new kind is one entry.
// After serve-plan.ts, before serving/devices.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import type { DeviceSpec, ImageEngine } from '../serving/devices.ts';
import { CONSOLE_OPTIONS, consoleQueues, consoleSpec } from './serve-console.ts';
import type { OptionReader, ServeOption } from './serve-options.ts';

/** Longest serial number of a disk, bytes (virtio §5.2.6, VIRTIO_BLK_T_GET_ID). */
const LONGEST_SERIAL = 20;

/** How an image can be read and written; the first is the default. */
const ENGINES: readonly ImageEngine[] = ['auto', 'sync', 'io_uring', 'mapped'];

/** What the command line knows of a kind of device. */
export interface ServedKind {
  readonly summary: string;
  readonly options: readonly ServeOption[];
  /** What `--print-capabilities` prints: VHostUserBackendCapabilities. */
  readonly capabilities: { readonly type: string; readonly features?: readonly string[] };
  readonly virtioId: number;
  /** QEMU's -device, without its connection. */
  readonly qemuDevice: (spec: DeviceSpec) => string;
  /** Whether that waits for a backend which is away. QEMU 7.2 ends at once where it does not (test/peers). */
  readonly qemuReconnects: boolean;
  /** Throws UsageError. */
  readonly spec: (options: OptionReader) => DeviceSpec;
}

/** Queues that the guest should have a processor for. */
export function queuesOf(spec: DeviceSpec): number {
  return spec.kind === 'blk' ? spec.queues : 1;
}

const BLK: ServedKind = {
  summary: 'a disk',
  options: [
    { name: 'disk', value: '<path>', help: 'raw image, or a block device' },
    {
      name: 'blk-file',
      value: '<path>',
      help: 'the same, by the name that other backend programs have for it',
    },
    { name: 'read-only', help: 'the guest may not write' },
    { name: 'direct', help: "past the host's page cache (O_DIRECT)" },
    { name: 'engine', value: '<engine>', help: `how the image is read and written: ${ENGINES.join(', ')}` },
    {
      name: 'queues',
      value: '<n>',
      help: 'request queues, best one for each processor of the guest (default: 1)',
    },
    { name: 'queue-size', value: '<n>', help: 'descriptors of a queue, a power of two (default: 256)' },
    { name: 'serial', value: '<text>', help: 'serial number, up to 20 bytes (default: grantio)' },
  ],
  capabilities: { type: 'block', features: ['read-only', 'blk-file'] },
  virtioId: VIRTIO_ID_BLOCK,
  qemuDevice: (spec) => `vhost-user-blk-pci,num-queues=${queuesOf(spec)}`,
  qemuReconnects: true,
  spec: (options) => ({
    kind: 'blk',
    path: diskPath(options),
    readOnly: options.flag('read-only'),
    direct: options.flag('direct'),
    engine: options.choice('engine', ENGINES),
    queues: options.number('queues', 1, 64, 1),
    queueSize: queueSize(options),
    id: serial(options),
  }),
};

const RNG: ServedKind = {
  summary: 'a source of entropy',
  options: [],
  capabilities: { type: 'rng' },
  virtioId: VIRTIO_ID_RNG,
  qemuDevice: () => 'vhost-user-rng-pci',
  qemuReconnects: false,
  spec: () => ({ kind: 'rng' }),
};

const CONSOLE: ServedKind = {
  summary: 'a console',
  options: CONSOLE_OPTIONS,
  capabilities: { type: 'console' },
  virtioId: VIRTIO_ID_CONSOLE,
  // QEMU knows no console of others by name; it takes any device by its number.
  qemuDevice: (spec) => `vhost-user-device-pci,virtio-id=${VIRTIO_ID_CONSOLE},num_vqs=${consoleQueues(spec)}`,
  qemuReconnects: false,
  spec: consoleSpec,
};

/** All kinds. */
export const SERVED_KINDS: { readonly [K in DeviceSpec['kind']]: ServedKind } = {
  blk: BLK,
  console: CONSOLE,
  rng: RNG,
};

/** The kind of that name; undefined when there is none. */
export function servedKind(name: string): ServedKind | undefined {
  return Object.hasOwn(SERVED_KINDS, name) ? SERVED_KINDS[name as DeviceSpec['kind']] : undefined;
}

function diskPath(options: OptionReader): string {
  const path = options.either('disk', 'blk-file')?.text;
  if (path === undefined) throw options.wrong('disk', 'is missing: the raw image to serve');
  return path;
}

function queueSize(options: OptionReader): number {
  const size = options.number('queue-size', 4, 32768, 256);
  if ((size & (size - 1)) !== 0) throw options.wrong('queue-size', `'${size}': expected a power of two`);
  return size;
}

function serial(options: OptionReader): string {
  const text = options.text('serial') ?? 'grantio';
  const bytes = Buffer.byteLength(text);
  if (bytes > LONGEST_SERIAL)
    throw options.wrong('serial', `'${text}': ${bytes} bytes, expected at most ${LONGEST_SERIAL}`);
  return text;
}
