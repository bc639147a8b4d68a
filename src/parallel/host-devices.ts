// The devices of a virtual host's guest, as they come and go: announced in xenstore in places of their own, connected by
// both ends, put to use, and taken away again. After virtual-host.ts, before toolstack/hot-plug.ts.

import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import type { DeviceSlots } from '../toolstack/device-slots.ts';
import { plugDevice, unplugDevice } from '../toolstack/hot-plug.ts';
import { type VirtioNodes, withdrawDevice } from '../toolstack/virtio-nodes.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import type { BackendCalls } from './backend-thread.ts';
import type { DomainThread } from './domain-thread.ts';
import type { GuestCalls } from './guest-thread.ts';
import { type AccessWish, GUEST, type HostDisk } from './host-options.ts';

/** Bytes that an entropy device delivers to show that it works. */
const ENTROPY_PROOF = 64;
/** Bytes that a console echoes to show that it works. */
const CONSOLE_PROOF = 4096;

/** Milliseconds that both ends are given to connect, and to finish and close. */
const PLUGGING_PATIENCE = 30_000;

/** A device that the guest has now. */
export interface PluggedDevice {
  /** Its name: that of the disk, or "entropy0" and so on. */
  readonly dev: string;
  readonly nodes: VirtioNodes;
  /** Where NBD clients find it; empty where NBD is not served, and for what is no disk. */
  readonly uris: readonly string[];
}

/** Gives a guest devices and takes them away, one after the other. */
export class HostDevices {
  readonly #tools: Xenstore;
  readonly #slots: DeviceSlots;
  readonly #guest: DomainThread<GuestCalls>;
  readonly #backend: () => DomainThread<BackendCalls>;
  readonly #devices = new Map<string, PluggedDevice>();
  #plugging: Promise<unknown> = Promise.resolve();
  #ended = false;

  /** @param backend the one that serves at the moment */
  constructor(
    tools: Xenstore,
    slots: DeviceSlots,
    guest: DomainThread<GuestCalls>,
    backend: () => DomainThread<BackendCalls>,
  ) {
    this.#tools = tools;
    this.#slots = slots;
    this.#guest = guest;
    this.#backend = backend;
  }

  /** Those that the guest has, in the order in which they came. */
  get all(): PluggedDevice[] {
    return [...this.#devices.values()];
  }

  /** See VirtualHost.openNbd. */
  async openNbd(address: string): Promise<string[]> {
    const disks = this.all.filter(({ nodes }) => nodes.disk !== undefined);
    const exports = disks.map(({ dev, nodes }) => ({ name: dev, devid: nodes.devid }));
    const uris = await this.#guest.call('openNbd', { address, exports });
    for (const [index, disk] of disks.entries())
      this.#devices.set(disk.dev, { ...disk, uris: [uris[index]!] });
    return uris;
  }

  /** See VirtualHost.plug. */
  plugDisk(disk: HostDisk): Promise<PluggedDevice> {
    return this.#inTurn(() => this.#plugDisk(disk));
  }

  /** See VirtualHost.plugEntropy. */
  plugEntropy(access: AccessWish): Promise<PluggedDevice> {
    return this.#inTurn(() =>
      this.#plugOther('entropy', VIRTIO_ID_RNG, access, (devid) =>
        this.#guest.call('drawEntropy', { devid, bytes: ENTROPY_PROOF }),
      ),
    );
  }

  /** Gives the guest a console that is attached to itself, as `plugEntropy` does. */
  plugConsole(access: AccessWish): Promise<PluggedDevice> {
    return this.#inTurn(() =>
      this.#plugOther('console', VIRTIO_ID_CONSOLE, access, (devid) =>
        this.#guest.call('tryConsole', { devid, bytes: CONSOLE_PROOF }),
      ),
    );
  }

  /** See VirtualHost.unplug. */
  unplug(dev: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const device = this.#devices.get(dev);
      if (device === undefined) throw new RangeError(`the guest has no device ${dev}`);
      const retired = this.#guest.call('retire', { devid: device.nodes.devid });
      await Promise.allSettled([retired]);
      const closed = await this.#unplug(device);
      await retired;
      return closed;
    });
  }

  /** Has `change` bring another backend, which then serves the same devices; the guest waits for them meanwhile. */
  replace(change: () => Promise<void>): Promise<void> {
    return this.#inTurn(async () => {
      await this.#guest.call('expectReplacements', true);
      try {
        const devices = this.all;
        await change();
        for (const device of devices) {
          const nodes = { ...device.nodes, backend: this.#backend().id };
          await this.#connect(nodes);
          this.#devices.set(device.dev, { ...device, nodes });
        }
      } finally {
        await this.#guest.call('expectReplacements', false);
      }
    });
  }

  /** Takes all nodes away at once: an end of theirs has gone. */
  async withdraw(): Promise<void> {
    for (const { nodes } of this.all) await withdrawDevice(this.#tools, nodes);
    this.#devices.clear();
  }

  /** Takes all devices away when what is under way has been done; no more come. */
  async unplugAll(): Promise<void> {
    this.#ended = true;
    await this.#plugging;
    await this.#guest.call('closeNbd', undefined);
    await Promise.all(this.all.map((device) => this.#unplug(device)));
  }

  async #plugDisk({ dev, path, readOnly, grantUsage = true }: HostDisk): Promise<PluggedDevice> {
    const disk = { params: path, readOnly, dev };
    const nodes = await this.#plug(dev, { kind: 'virtio_disk', virtioId: VIRTIO_ID_BLOCK, grantUsage, disk });
    return this.#begin({ dev, nodes, uris: [] }, async () => {
      const uris = await this.#guest.call('addExport', { name: dev, devid: nodes.devid });
      this.#devices.set(dev, { dev, nodes, uris });
    });
  }

  /** Plugs a device that is no disk, under the first name that is free; it has to prove that it works. */
  async #plugOther(
    name: string,
    virtioId: number,
    { grantUsage = true }: AccessWish,
    prove: (devid: number) => Promise<void>,
  ): Promise<PluggedDevice> {
    let number = 0;
    while (this.#devices.has(`${name}${number}`)) number++;
    const dev = `${name}${number}`;
    const nodes = await this.#plug(dev, { kind: 'virtio', virtioId, grantUsage });
    return this.#begin({ dev, nodes, uris: [] }, () => prove(nodes.devid));
  }

  /** Notes a device that is connected. Where it cannot be put to use, it is taken away again. */
  async #begin(device: PluggedDevice, use: () => Promise<void>): Promise<PluggedDevice> {
    this.#devices.set(device.dev, device);
    try {
      await use();
      return this.#devices.get(device.dev)!;
    } catch (error) {
      await this.#unplug(device);
      throw error;
    }
  }

  /** Announces a device in the lowest place that is free, and waits until it is connected. */
  async #plug(
    dev: string,
    kind: Pick<VirtioNodes, 'kind' | 'virtioId' | 'grantUsage' | 'disk'>,
  ): Promise<VirtioNodes> {
    if (this.#devices.has(dev))
      throw new RangeError(`the guest has a device ${dev} already; choose another name`);
    const slot = this.#slots.take();
    const { index: devid, base, irq } = slot;
    const nodes = { ...kind, backend: this.#backend().id, guest: GUEST, devid, base, irq };
    try {
      await this.#connect(nodes);
      return nodes;
    } catch (error) {
      this.#slots.give(slot);
      throw error;
    }
  }

  #connect(nodes: VirtioNodes): Promise<void> {
    return this.#patiently('connect', (signal) => plugDevice(this.#tools, nodes, signal));
  }

  async #unplug({ dev, nodes }: PluggedDevice): Promise<boolean> {
    const closed = await this.#patiently('close', (signal) => unplugDevice(this.#tools, nodes, signal));
    this.#devices.delete(dev);
    this.#slots.give({ index: nodes.devid });
    return closed;
  }

  /** Ends the waiting for two ends that do not come to what they are asked for, or of which one has died. */
  async #patiently<T>(what: string, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const impatience = new AbortController();
    const late = new Error(`guest and backend did not ${what} in ${PLUGGING_PATIENCE / 1000} s`);
    const timer = setTimeout(() => impatience.abort(late), PLUGGING_PATIENCE);
    try {
      return await wait(AbortSignal.any([impatience.signal, this.#guest.ended, this.#backend().ended]));
    } finally {
      clearTimeout(timer);
    }
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#plugging.then(() => {
      if (this.#ended) throw new Error('the host is being stopped');
      return change();
    });
    this.#plugging = result.catch(() => undefined);
    return result;
  }
}
