// What requests are called when they are counted, whatever the kind of device. A new kind is one entry here.
// Used by queue-counters.ts and by whoever reads the counters.

import {
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  virtioBlkRequestHeader,
} from '../abi/virtio-blk.ts';

/** All names; counters are numbered by their place here. */
export const OPERATIONS = [
  'read',
  'write',
  'flush',
  'discard',
  'write_zeroes',
  'get_id',
  'entropy',
  'receive',
  'transmit',
  'control',
  'other',
] as const;

export type Operation = (typeof OPERATIONS)[number];

const WITHOUT_DATA: ReadonlySet<Operation> = new Set([
  'flush',
  'discard',
  'write_zeroes',
  'control',
  'other',
]);

/** Whether bytes that such requests read and write are data. */
export function movesData(name: Operation): boolean {
  return !WITHOUT_DATA.has(name);
}

const numberOf = (name: Operation): number => OPERATIONS.indexOf(name);

/** Bytes around the data of a request that moves data. */
const BLK_HEADER = virtioBlkRequestHeader.size;
const BLK_STATUS = 1;

/** How the requests of one queue are counted. */
export interface QueueOperations {
  /** Numbers of operations by the type of request. */
  readonly byType: Uint8Array;
  /** The number where there is no type, or an unknown one. */
  readonly untyped: number;
  /** Bytes of a request that the device reads, and writes, and that are no data. */
  readonly header: number;
  readonly trailer: number;
}

/** The operations of a kind of device. */
interface KindOperations {
  readonly names: readonly Operation[];
  /** Whether its drivers put buffers there to be filled when something comes, which ask for nothing. */
  readonly waits?: true;
  ofQueue(index: number): QueueOperations;
}

const BLK_TYPES: readonly (readonly [type: number, name: Operation])[] = [
  [VIRTIO_BLK_T_IN, 'read'],
  [VIRTIO_BLK_T_OUT, 'write'],
  [VIRTIO_BLK_T_FLUSH, 'flush'],
  [VIRTIO_BLK_T_DISCARD, 'discard'],
  [VIRTIO_BLK_T_WRITE_ZEROES, 'write_zeroes'],
  [VIRTIO_BLK_T_GET_ID, 'get_id'],
];

function blkQueue(): QueueOperations {
  const byType = new Uint8Array(VIRTIO_BLK_T_WRITE_ZEROES + 1).fill(numberOf('other'));
  for (const [type, name] of BLK_TYPES) byType[type] = numberOf(name);
  return { byType, untyped: numberOf('other'), header: BLK_HEADER, trailer: BLK_STATUS };
}

function untyped(name: Operation): QueueOperations {
  return { byType: new Uint8Array(0), untyped: numberOf(name), header: 0, trailer: 0 };
}

/** §5.3.2: the first port's two queues, two for control, then two for each further port. */
function consoleQueue(index: number): QueueOperations {
  if (index === 2 || index === 3) return untyped('control');
  return untyped(index % 2 === 0 ? 'receive' : 'transmit');
}

const KINDS: Readonly<Record<string, KindOperations>> = {
  blk: { names: [...BLK_TYPES.map(([, name]) => name), 'other'], ofQueue: blkQueue },
  rng: { names: ['entropy'], ofQueue: () => untyped('entropy') },
  console: { names: ['receive', 'transmit', 'control'], waits: true, ofQueue: consoleQueue },
};
const UNKNOWN: KindOperations = { names: ['other'], ofQueue: () => untyped('other') };

/** The operations that a kind of device has. */
export function operationsOf(kind: string): readonly Operation[] {
  return (KINDS[kind] ?? UNKNOWN).names;
}

/** Whether every chain of such a device is a request that is to be answered at once. */
export function isRequested(kind: string): boolean {
  return (KINDS[kind] ?? UNKNOWN).waits !== true;
}

/** How the requests of queue `index` of such a device are counted. */
export function queueOperations(kind: string, index: number): QueueOperations {
  return (KINDS[kind] ?? UNKNOWN).ofQueue(index);
}
