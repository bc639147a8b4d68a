// The work of a backend in a driver domain: serves what xenstore announces, or what it was told to serve, and sleeps in
// between. One thread does all of it, as in the embedded Xen (parallel/backend-thread.ts): registers and rings of all
// guests, the store, the images. After xen-thread.ts, before machine/backend-service.ts.
//
// Whatever is asynchronous here waits for the store. Promises go on in a turn of Node's event loop, which is taken when
// the store has said something, and not for each request of a guest.

import { setImmediate as turn } from 'node:timers/promises';
import type { ProtocolViolation } from '../errors.ts';
import type { DeviceNews, MadeDevice } from '../machine/backend-device.ts';
import { BackendDomain, type MemoryAccess, type ServedDevice } from '../machine/backend-domain.ts';
import { BackendService } from '../machine/backend-service.ts';
import { type NeedTracer, needsOf } from '../memory/traced-memory.ts';
import type { DeviceAddress, VirtioNodes } from '../toolstack/virtio-nodes.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper } from '../virtio/device-keeper.ts';
import { type RequestTracer, requestsOf } from '../virtqueue/traced-queue.ts';
import type { BackendHost } from '../xen/backend-host.ts';
import type { DomainId } from '../xen/ids.ts';
import { type Xenstore, XenstoreError } from '../xen/xenstore.ts';
import type { Notice } from './control.ts';
import { newDeviceCounters, WORKER_BLOCK } from './counter-blocks.ts';
import type { DeviceHosting, DeviceSpec } from './devices.ts';
import type { NewDevice } from './process-counters.ts';
import { XenCounters } from './xen-counters.ts';
import { madeDevice, specOf, type XenDeviceOptions } from './xen-devices.ts';
import { type DomainList, guestLives } from './xen-guests.ts';
import type { Wakes } from './xen-wakes.ts';

/** Turns with work between two looks at everything but the guests. */
const BUSY_TURNS = 16;
const DOMAIN_GONE = '@releaseDomain';

/** A device that nothing announces. */
export interface AttachedDevice {
  readonly name: string;
  readonly spec: DeviceSpec;
  readonly guest: DomainId;
  /** Guest-physical address of its registers, and its interrupt line. */
  readonly base: number;
  readonly irq: number;
  readonly access: MemoryAccess;
}

/** Records of devices, as XenRecords has them. */
export interface DeviceRecords {
  readonly guests: readonly number[];
  claim(guest: DomainId): void;
  claimAnnouncements(): void;
  release(guest: DomainId): void;
  keeper(guest: DomainId, base: number, device: VirtioDevice, anew: boolean): DeviceKeeper;
  forget(guest: number): void;
}

/** What a loop is made of. */
export interface XenLoopParts {
  readonly host: BackendHost;
  readonly store: Xenstore & DomainList;
  readonly hosting: DeviceHosting;
  readonly wakes: Wakes;
  /** Where devices are kept for a successor, if they are. */
  readonly records: DeviceRecords | undefined;
  readonly notify: (notice: Notice) => void;
  /** Where this thread counts what it does (counter-blocks.ts). */
  readonly counters: Float64Array;
  /** Told of each device from when it is made until it is closed. */
  readonly counted: CountedDevices;
}

/** Whoever reads what is counted of devices. */
export interface CountedDevices {
  add(device: NewDevice): void;
  remove(name: string): void;
}

interface Attachment {
  readonly device: AttachedDevice;
  readonly made: MadeDevice;
  readonly served: ServedDevice;
}

/** All devices of a driver domain. */
export class XenLoop {
  readonly #parts: XenLoopParts;
  readonly #backend: BackendDomain;
  readonly #attached = new Set<Attachment>();
  #service: BackendService | undefined;
  /** Whether guests are served: what waits in one of them may be for the device that is taken over last. */
  #begun = false;
  /** Devices that have been made, which is how they are numbered in a trace. */
  #made = 0;
  /** Requests that have been reported to it. */
  #requests = 0;
  #ended = false;
  #error: unknown;
  readonly #unflushed: string[] = [];

  constructor(parts: XenLoopParts) {
    this.#parts = parts;
    this.#backend = new BackendDomain(parts.host);
  }

  /** Serves from now on what xenstore announces. Resolves when it is watched; rejects when another backend does. */
  async watch(options: XenDeviceOptions): Promise<void> {
    const { store, records } = this.#parts;
    // Two would not only want the same devices: the one that is refused would say so in the nodes of the other's.
    records?.claimAnnouncements();
    const make = (nodes: VirtioNodes, again: boolean): MadeDevice => ({
      ...this.#make(specOf(nodes, options), nameOf(nodes), nodes.guest, nodes.base, !again),
      access: options.access,
    });
    this.#service = new BackendService(this.#backend, store, make, {
      lives: (guest) => guestLives(store, guest),
      tell: (address, news) => this.#tell(address, news),
      succeeds: records !== undefined,
    });
    await this.#forgetDead();
    await this.#service.start();
    await this.#service.settled();
    this.#begun = true;
  }

  /**
   * Serves these devices, until the guests have gone that have them. Resolves when they are served; rejects when one
   * cannot be.
   */
  async attach(devices: readonly AttachedDevice[]): Promise<void> {
    await this.#forgetDead();
    try {
      for (const device of devices) this.#attach(device);
    } catch (error) {
      for (const attachment of this.#attached) this.#detach(attachment, attachment.served.resumed);
      throw error;
    }
    await this.#watchDeaths();
    this.#begun = true;
  }

  /** Throws why it cannot be, and then nothing of it is left. */
  #attach(device: AttachedDevice): void {
    const { name, spec, access, guest, base, irq } = device;
    const made = this.#make(spec, name, guest, base, false);
    try {
      const { keeper, needs, meter } = made;
      const served = this.#backend.serve(made.device, guest, base, access, { irq, keeper, needs, meter });
      this.#attached.add({ device, made, served });
      this.#follow(name, served);
      this.#say('info', name, servedWords(base, irq, access, served));
    } catch (error) {
      made.close();
      throw error;
    }
  }

  #make(
    spec: DeviceSpec,
    name: string,
    guest: DomainId,
    base: number,
    anew: boolean,
  ): Omit<MadeDevice, 'access'> {
    const made = this.#madeClaimed(spec, name, guest, base, anew);
    const { counted } = this.#parts;
    const counters = newDeviceCounters(1);
    counted.add({ name, kind: spec.kind, guest, counters });
    const close = (): void => {
      made.close();
      counted.remove(name);
    };
    const traced = this.#traced(guest);
    const meter = new XenCounters(counters, spec.kind, traced?.requests);
    return { ...made, close, needs: traced?.needs, meter };
  }

  /** Throws why it cannot be, and then this backend claims the guest no more than before. */
  #madeClaimed(
    spec: DeviceSpec,
    name: string,
    guest: DomainId,
    base: number,
    anew: boolean,
  ): ReturnType<typeof madeDevice> {
    const { hosting, records } = this.#parts;
    records?.claim(guest);
    try {
      return madeDevice(spec, {
        hosting,
        keep: (device) => records?.keeper(guest, base, device, anew),
        onLoss: () => this.#unflushed.push(name),
      });
    } catch (error) {
      records?.release(guest);
      throw error;
    }
  }

  /** The next device, for whoever follows what is reached and needed. */
  #traced(guest: DomainId): { readonly needs: NeedTracer; readonly requests: RequestTracer } | undefined {
    const { tracer } = this.#parts.host;
    if (!tracer.enabled) return undefined;
    const device = this.#made++;
    const nextId = (): number => this.#requests++;
    return {
      needs: needsOf(tracer, guest, device),
      requests: requestsOf(tracer, guest, device, nextId),
    };
  }

  /** What was kept of guests that died while nobody was here. */
  async #forgetDead(): Promise<void> {
    const { records, store } = this.#parts;
    for (const guest of records?.guests ?? []) if (!(await guestLives(store, guest))) records!.forget(guest);
  }

  async #watchDeaths(): Promise<void> {
    try {
      await this.#parts.store.watch(DOMAIN_GONE, () => {
        this.#buryGuests().catch((error: unknown) => this.fail(error));
      });
    } catch (error) {
      if (!(error instanceof XenstoreError)) throw error;
      this.#say(
        'warn',
        '',
        `deaths of guests are not heard of, for the store does not tell: ${error.message}`,
      );
    }
  }

  /** Has `run` end with an error, after which nothing can be served. */
  fail(error: unknown): void {
    this.#error ??= error;
    this.#ended = true;
  }

  /**
   * Serves until the end. Rejects with what `fail` was given.
   *
   * @param mail called when somebody may have woken this thread
   * @param quitting whether the process is about to end, in which case there is nobody to wait for
   */
  async run(mail: () => void, quitting: () => boolean): Promise<void> {
    const { wakes, counters } = this.#parts;
    for (let busy = 0; !this.#ended && !quitting(); ) {
      if (wakes.takeTurn()) {
        mail();
        await turn();
      }
      const worked = this.#begun && this.#backend.poll();
      counters[WORKER_BLOCK.at.looks]++;
      if (wakes.endTurn() || worked) {
        counters[WORKER_BLOCK.at.busyLooks]++;
        busy++;
      } else busy = 0;
      if (busy % BUSY_TURNS === 0) wakes.look(busy === 0 && !this.#ended);
    }
    if (this.#error !== undefined) throw this.#error;
  }

  /**
   * Takes all devices away, or leaves them to a successor where they are kept for one. What was written lasts when it
   * resolves, or `failure` says what may not.
   */
  async end(): Promise<void> {
    const leaves = this.#parts.records !== undefined;
    await (leaves ? this.#service?.leave() : this.#service?.stop());
    for (const attachment of this.#attached) this.#detach(attachment, leaves);
    this.#ended = true;
  }

  /** What went wrong at the end: devices whose data may not survive a power cut. */
  get failure(): string | undefined {
    if (this.#unflushed.length === 0) return undefined;
    return `what was written last may be lost, for it could not be flushed: ${this.#unflushed.join(', ')}`;
  }

  async #buryGuests(): Promise<void> {
    for (const attachment of [...this.#attached]) {
      const { guest, name } = attachment.device;
      if (await guestLives(this.#parts.store, guest)) continue;
      this.#detach(attachment);
      this.#say('info', name, `domain ${guest} has gone: the device is closed`);
    }
    if (this.#attached.size === 0) this.#ended = true;
  }

  #detach(attachment: Attachment, leaves = false): void {
    if (!this.#attached.delete(attachment)) return;
    if (leaves) this.#backend.leave(attachment.served);
    else this.#backend.remove(attachment.served);
    attachment.made.close();
  }

  #tell(address: DeviceAddress, news: DeviceNews): void {
    const name = nameOf(address);
    if (news.kind === 'served') {
      const { base, irq, grantUsage } = news.nodes;
      this.#follow(name, news.served);
      this.#say('info', name, servedWords(base, irq, grantUsage ? 'map' : 'plain', news.served));
    } else if (news.kind === 'refused') this.#say('error', name, `cannot be served: ${news.reason}`);
    else this.#say('info', name, 'closed');
  }

  #follow(name: string, served: ServedDevice): void {
    served.onBroken = ({ clause, detail }: ProtocolViolation) =>
      this.#parts.notify({
        ...{ level: 'warn', device: name, clause },
        message: `broken by its driver, until that resets it: ${detail}`,
      });
    if (served.state.fault !== undefined) served.onBroken(served.state.fault);
  }

  #say(level: Notice['level'], device: string, message: string): void {
    this.#parts.notify({ level, device, message });
  }
}

/** What a device is called in the log. */
function nameOf({ guest, kind, devid }: Omit<DeviceAddress, 'backend'>): string {
  return `${guest}/${kind}/${devid}`;
}

function servedWords(base: number, irq: number, access: MemoryAccess, { resumed }: ServedDevice): string {
  const reach = access === 'plain' ? "all of the guest's memory, without grants" : 'what the guest grants';
  return `${resumed ? 'taken over from a predecessor, and ' : ''}served at 0x${base.toString(16)}, interrupt ${irq}; it reaches ${reach}`;
}
