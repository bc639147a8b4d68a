// The thread of a backend domain: serves the devices that xenstore announces, and sleeps in between.
// Started by virtual-host.ts.

import { setImmediate as turn } from 'node:timers/promises';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import { BlkDevice } from '../devices/blk.ts';
import { ConsoleDevice } from '../devices/console.ts';
import { EchoEndpoint } from '../devices/echo-endpoint.ts';
import { RngDevice } from '../devices/rng.ts';
import type { MadeDevice } from '../machine/backend-device.ts';
import { BackendDomain, type MemoryAccess } from '../machine/backend-domain.ts';
import { BackendService } from '../machine/backend-service.ts';
import { RawFile } from '../storage/raw-file.ts';
import type { VirtioNodes } from '../toolstack/virtio-nodes.ts';
import { type DomainLoop, startDomain } from './domain-loop.ts';
import { PeepingCopier } from './peeping-copier.ts';
import { type Glimpse, PeepingMapper } from './peeping-mapper.ts';

/** How long an idle backend looks for work before it sleeps, in turns of its loop. */
const SPINS = 2000;
/** Longest sleep, in milliseconds; events and mail end it. */
const NAP = 1000;

interface BackendOptions {
  readonly queues: number;
  readonly queueSize: number;
  readonly access: MemoryAccess;
}

/** What the main thread may ask. */
export type BackendCalls = {
  /** Queues and descriptors of the disks that are announced from now on, and how their buffers are reached. */
  configure(options: BackendOptions): void;
  /** What a curious backend has seen in the pages that it mapped, and beside what it copied. */
  glimpse(argument: undefined): Glimpse | undefined;
  /** Ends all devices; the images have been flushed when it returns. */
  stop(argument: undefined): Promise<{ mapped: number }>;
};

let options: BackendOptions = { queues: 1, queueSize: 128, access: 'map' };
let stopped = false;

/** Makes each kind of device that is served, by virtio device id: a new kind is one line here. */
const makers = new Map<number, (nodes: VirtioNodes) => MadeDevice>([
  [VIRTIO_ID_BLOCK, makeDisk],
  [VIRTIO_ID_CONSOLE, makeConsole],
  [VIRTIO_ID_RNG, makeEntropySource],
]);

function makeDevice(nodes: VirtioNodes): MadeDevice {
  const make = makers.get(nodes.virtioId);
  if (make === undefined)
    throw new Error(
      `virtio device type ${nodes.virtioId}: this backend serves types ${[...makers.keys()].join(' and ')}`,
    );
  return { ...make(nodes), access: options.access };
}

function makeDisk({ guest, devid, disk }: VirtioNodes): MadeDevice {
  if (disk === undefined) throw new Error('a block device that is announced without an image');
  const store = new RawFile(disk.params, disk.readOnly);
  return {
    device: new BlkDevice(store, { ...options, id: `grantio-${guest}-${devid}` }),
    close: () => {
      store.flush();
      store.close();
    },
  };
}

/** A console that is attached to itself: what the guest writes is what it reads. */
function makeConsole(): MadeDevice {
  const port = { name: 'echo', isConsole: true, endpoint: new EchoEndpoint() };
  return { device: new ConsoleDevice([port]), close: () => undefined };
}

function makeEntropySource(): MadeDevice {
  return { device: new RngDevice((bytes) => crypto.getRandomValues(bytes)), close: () => undefined };
}

/** Serves until it is told to stop. A turn of the event loop is taken when there is mail, not before. */
async function run(loop: DomainLoop, backend: BackendDomain): Promise<void> {
  let idle = 0;
  while (!stopped) {
    if (loop.hasMail()) await turn();
    if (backend.poll()) idle = 0;
    else if (++idle > SPINS) {
      loop.ports.events.sleep(NAP, loop.hasMail);
      idle = 0;
    }
  }
}

function start(): void {
  let service: BackendService | undefined;
  let glimpse: (() => Glimpse) | undefined;
  const loop = startDomain(() => ({
    configure(wanted: BackendOptions) {
      options = wanted;
    },
    glimpse: () => glimpse?.(),
    async stop() {
      await service?.stop();
      stopped = true;
      return { mapped: loop.ports.grantMapper.live };
    },
  }));
  const mapper = new PeepingMapper(loop.ports.grantMapper, loop.ports.addressSpace);
  const copier = new PeepingCopier(loop.ports.grantCopier, mapper);
  glimpse = () => ({ ...mapper.glimpse, attempts: copier.attempts });
  const backend = new BackendDomain(loop.ports, { mapper, copier });
  service = new BackendService(backend, loop.xenstore, makeDevice);
  void service.start();
  void run(loop, backend);
}

start();
