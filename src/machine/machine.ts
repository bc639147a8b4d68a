// Newcomers start here: a whole machine in one thread. It boots the embedded Xen, makes domains, and runs
// them a step at a time in an order that a seed decides, so that every run can be repeated: by
// its seed, or by the schedule that it wrote down (docs/exploring.md).
//
//   const machine = new Machine({ seed: 1 });
//   const backend = machine.createBackend(1);
//   const guest = machine.createGuest(2);
//   const base = machine.xen.domain(2).map.virtioMmio;
//   backend.serve(new BlkDevice(store, options), guest.ports.id, base);
//   const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, 'bounce', options);
//   await machine.settle(disk.read(0, await disk.buffer(4096), 4096));
//
// With `xenstore: true` it has domain 0 too, which keeps the store: `machine.xenstore` is how the toolstack
// sees it, `machine.xenstoreOf(guest.ports)` how a domain does, over its ring.

import type { GuestPageSize } from '../dma/guest-memory.ts';
import type { Architecture, DomainKind } from '../hosts/model/address-map.ts';
import type { WaitWhile } from '../hosts/model/waiting.ts';
import { type DomainPorts, Xen } from '../hosts/model/xen.ts';
import { noTrace, type Tracer } from '../trace.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { Store } from '../xenstore/store.ts';
import { BackendDomain } from './backend-domain.ts';
import { GuestDomain } from './guest-domain.ts';
import { type Choose, following, formatSchedule, parseSchedule, seeded } from './schedule.ts';
import { StoreDomain } from './store-domain.ts';
import { openXenstore } from './store-link.ts';

const MIB = 2 ** 20;

/** Milliseconds after the last work in which guests may try again to take back what a backend holds. */
const PATIENCE = 10_000;

/** How a deterministic machine is made. */
export interface MachineOptions {
  /** Decides which domain runs next wherever several could. */
  readonly seed: number;
  /**
   * What `Machine.schedule` said of another run: followed first, before the seed decides. A step throws
   * RangeError when it names a domain that cannot run there.
   */
  readonly schedule?: string;
  /** Decides in place of seed and schedule: the explorer's, see explore/. */
  readonly choose?: Choose;
  /** Bytes of machine memory (default 64 MiB) and of Xen's heap (default 32 MiB). */
  readonly memory?: number;
  readonly heap?: number;
  /** Of all its domains. Default 'arm', where libxl knows virtio devices; guests' memory is from 0x40000000 on. */
  readonly architecture?: Architecture;
  readonly tracer?: Tracer;
  /** Whether there is a store, and a ring to it in the memory of every domain. */
  readonly xenstore?: boolean;
}

/** How a domain of the deterministic machine is made. */
export interface MachineDomainOptions {
  /** Bytes; 4 MiB for a backend and 16 MiB for a guest unless given. */
  readonly memory?: number;
  readonly maxGrantFrames?: number;
  readonly maxMaptrackFrames?: number;
  /** Default 'pvh', the only kind on Arm. Registers of devices can be served to 'pvh' and 'hvm'. */
  readonly kind?: DomainKind;
  /** Bytes of a page of its kernel (default 4096): what the kernel allocates by. Xen's are 4 KiB always. */
  readonly pageSize?: GuestPageSize;
}

/** Something that runs when it has something to do. */
interface Runnable {
  poll(): boolean;
}

/** One thread, all domains. */
export class Machine {
  readonly xen: Xen;
  readonly #architecture: Architecture;
  readonly #tracer: Tracer;
  readonly #choose: Choose;
  readonly #domains = new Map<number, Runnable>();
  /** Whose turn it was, from the start. */
  readonly #choices: number[] = [];
  readonly #backends = new Set<number>();
  readonly #guests = new Map<number, GuestDomain>();
  readonly #control: StoreDomain | undefined;
  readonly #clients = new Map<DomainId, Xenstore>();
  /** What the clock says, in milliseconds: it goes on when no domain has anything to do. */
  #now = 0;
  /** What it said when one last had. */
  #lastWork = 0;
  readonly #waitWhile: WaitWhile = (words, index, value) => {
    while (Atomics.load(words, index) === value) if (!this.step()) return false;
    return true;
  };

  constructor(options: MachineOptions) {
    this.xen = Xen.boot(options.memory ?? 64 * MIB, options.heap ?? 32 * MIB, false);
    this.#architecture = options.architecture ?? 'arm';
    this.#tracer = options.tracer ?? noTrace;
    this.#choose = options.choose ?? following(parseSchedule(options.schedule ?? ''), seeded(options.seed));
    if (options.xenstore !== true) return;
    this.#control = new StoreDomain(
      this.xen,
      this.#architecture,
      new Store({ now: () => this.#now }),
      this.#waitWhile,
    );
    this.#domains.set(this.#control.ports.id, this.#control);
  }

  /**
   * Which domains were given a turn, from the start, as text for `MachineOptions.schedule`. A turn with nothing
   * to do counts as well, for a guest may write to its rings when it finds them empty.
   */
  get schedule(): string {
    return formatSchedule(this.#choices);
  }

  /** Domain 0, which keeps the store. Throws RangeError on a machine that was made without one. */
  get control(): StoreDomain {
    if (this.#control === undefined) throw new RangeError('the machine was made without a store (xenstore)');
    return this.#control;
  }

  /** The store as the toolstack sees it. */
  get xenstore(): Xenstore {
    return this.control.tools;
  }

  /** The store as a domain reaches it, over the ring in its memory. It answers while the machine steps. */
  xenstoreOf({ id }: DomainPorts): Xenstore {
    const client = this.#clients.get(id);
    if (client === undefined) throw new RangeError(`domain ${id} is not connected with a store`);
    return client;
  }

  /** Lets time go by on the machine's own clock, and guests do what is due then. */
  advance(milliseconds: number): void {
    this.#now += milliseconds;
    for (const guest of this.#guests.values()) guest.tick(this.#now);
  }

  /** Makes a domain that serves devices. */
  createBackend(id: number, options: MachineDomainOptions = {}): BackendDomain<DomainPorts> {
    const backend = new BackendDomain(this.#createDomain(id, 4 * MIB, options));
    this.#backends.add(id);
    for (const guest of this.#guests.keys()) this.#nameDeviceModel(guest, id);
    this.#domains.set(id, backend);
    return backend;
  }

  /** Makes a guest, whose devices any backend may serve. */
  createGuest(id: number, options: MachineDomainOptions = {}): GuestDomain {
    const guest = new GuestDomain(this.#createDomain(id, 16 * MIB, options));
    this.#run(id, guest);
    return guest;
  }

  /**
   * Takes over a guest that was suspended, here or in another machine, from its image (Xen.saveDomain).
   *
   * @returns what it has here, for `GuestDomain.resume` when its devices are served
   * @throws DomainImageError or RangeError, and then there is no domain
   */
  restoreGuest(id: number, image: Iterable<Uint8Array>, guest: GuestDomain): DomainPorts {
    const record = this.xen.restoreDomain(id, image);
    const ports = this.#portsOf(id);
    this.xen.domains.unpause(record);
    this.#run(id, guest);
    return ports;
  }

  /** Keeps a domain from running until as many calls of `unpause`. */
  pause(id: number): void {
    this.xen.domains.pause(this.xen.domain(id));
  }

  unpause(id: number): void {
    this.xen.domains.unpause(this.xen.domain(id));
  }

  /**
   * Ends a domain at once, whatever it was doing (xl destroy); the others may run while it is taken apart. Pages of
   * its that others map stay until they let go, and so long its id is taken.
   */
  destroy(id: number): void {
    this.#domains.delete(id);
    this.#backends.delete(id);
    this.#guests.delete(id);
    this.#clients.delete(domainId(id));
    this.#control?.release(domainId(id));
    for (const _ of this.xen.destroyDomain(id)) this.step();
  }

  /**
   * Lets one domain that has something to do run until it has not. When none has, time goes on to the moment for
   * which the store or a guest waits. Returns false when nothing will happen any more.
   */
  step(): boolean {
    for (let ready = this.#running(); ready.length > 0; ) {
      const id = this.#choose(ready);
      this.#choices.push(id);
      if (this.#domains.get(id)!.poll()) {
        this.#lastWork = this.#now;
        return true;
      }
      ready = ready.filter((other) => other !== id);
    }
    return this.#passTime();
  }

  /** Steps until `promise` is settled. Throws when everything sleeps and it never will be. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const end = () => {
      settled = true;
    };
    promise.then(end, end);
    // Idle steps are allowed for: promises chain through several turns of the microtask queue.
    for (let idle = 0; !settled && idle < 100; ) {
      idle = this.step() ? 0 : idle + 1;
      await Promise.resolve();
    }
    if (!settled)
      throw new Error('the machine sleeps: nothing is left to do, but the request is not answered');
    return promise;
  }

  /** Goes on to the next moment for which somebody waits. Returns whether there is one, and something to do then. */
  #passTime(): boolean {
    const store = this.#now + (this.#control?.delay ?? Number.POSITIVE_INFINITY);
    const guests = this.#running().map(
      (id) => this.#guests.get(id)?.tick(this.#now) ?? Number.POSITIVE_INFINITY,
    );
    const due = Math.min(store, ...guests);
    if (due === Number.POSITIVE_INFINITY) return false;
    if (due < store && due > this.#lastWork + PATIENCE) return false;
    this.#now = due;
    return due < store || this.#control!.poll();
  }

  /** The domains that are not paused. */
  #running(): number[] {
    return [...this.#domains.keys()].filter((id) => this.xen.domains.find(id)?.pauseCount === 0);
  }

  #run(id: number, guest: GuestDomain): void {
    this.#guests.set(id, guest);
    for (const backend of this.#backends) this.#nameDeviceModel(id, backend);
    this.#domains.set(id, {
      poll: () => {
        const worked = guest.poll();
        return guest.arm() || worked;
      },
    });
  }

  /** As far as neither of the two has gone meanwhile. */
  #nameDeviceModel(guest: number, backend: number): void {
    const { domains } = this.xen;
    if (domains.find(guest)?.alive && domains.find(backend)?.alive) this.xen.nameDeviceModel(guest, backend);
  }

  #createDomain(id: number, memory: number, options: MachineDomainOptions): DomainPorts {
    const { pageSize, ...limits } = options;
    this.xen.createDomain(id, { memory, architecture: this.#architecture, ...limits });
    return this.#portsOf(id, pageSize);
  }

  #portsOf(id: number, pageSize?: GuestPageSize): DomainPorts {
    const ports = this.xen.ports(domainId(id), this.#waitWhile, this.#tracer, 0, pageSize);
    if (this.#control !== undefined)
      this.#clients.set(ports.id, openXenstore(ports, this.#control.introduce(ports)));
    return ports;
  }
}
