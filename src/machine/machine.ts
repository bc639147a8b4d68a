// Newcomers start here: a whole machine in one thread. It boots the embedded Xen, makes domains, and runs
// them a step at a time in an order that a seed decides, so that every run can be repeated.
//
//   const machine = new Machine({ seed: 1 });
//   const backend = machine.createBackend(1);
//   const guest = machine.createGuest(2);
//   backend.serve(new BlkDevice(store, options), guest.ports.id, base);
//   const disk = guest.attachBlk({ base, backend: backend.ports.id, device: 0 }, 'bounce', options);
//   await machine.settle(disk.read(0, await disk.buffer(4096), 4096));

import { Xen } from '../hosts/model/xen.ts';
import { noTrace, type Tracer } from '../trace.ts';
import { domainId } from '../xen/ids.ts';
import { BackendDomain } from './backend-domain.ts';
import { GuestDomain } from './guest-domain.ts';
import { randomFrom } from './random.ts';

const MIB = 2 ** 20;

/** How a deterministic machine is made. */
export interface MachineOptions {
  /** Decides which domain runs next wherever several could. */
  readonly seed: number;
  /** Bytes of machine memory (default 64 MiB) and of Xen's heap (default 32 MiB). */
  readonly memory?: number;
  readonly heap?: number;
  readonly tracer?: Tracer;
}

/** How a domain of the deterministic machine is made. */
export interface MachineDomainOptions {
  /** Bytes; 4 MiB for a backend and 16 MiB for a guest unless given. */
  readonly memory?: number;
  readonly maxGrantFrames?: number;
  readonly maxMaptrackFrames?: number;
}

/** Something that runs when it has something to do. */
interface Runnable {
  poll(): boolean;
}

/** One thread, all domains. */
export class Machine {
  readonly xen: Xen;
  readonly #tracer: Tracer;
  readonly #random: () => number;
  readonly #domains: Runnable[] = [];
  readonly #backends: number[] = [];
  readonly #guests: number[] = [];

  constructor(options: MachineOptions) {
    this.xen = Xen.boot(options.memory ?? 64 * MIB, options.heap ?? 32 * MIB, false);
    this.#tracer = options.tracer ?? noTrace;
    this.#random = randomFrom(options.seed);
  }

  /** Makes a domain that serves devices. */
  createBackend(id: number, options: MachineDomainOptions = {}): BackendDomain {
    this.xen.createDomain(id, { memory: 4 * MIB, ...options });
    this.#backends.push(id);
    for (const guest of this.#guests) this.xen.nameDeviceModel(guest, id);
    const backend = new BackendDomain(this.#ports(id));
    this.#domains.push(backend);
    return backend;
  }

  /** Makes a guest, whose devices any backend may serve. */
  createGuest(id: number, options: MachineDomainOptions = {}): GuestDomain {
    this.xen.createDomain(id, { memory: 16 * MIB, ...options });
    this.#guests.push(id);
    for (const backend of this.#backends) this.xen.nameDeviceModel(id, backend);
    const guest = new GuestDomain(this.#ports(id));
    this.#domains.push({
      poll: () => {
        const worked = guest.poll();
        return guest.arm() || worked;
      },
    });
    return guest;
  }

  /** Lets one domain that has something to do run until it has not. Returns false when none has. */
  step(): boolean {
    const first = Math.floor(this.#random() * this.#domains.length);
    for (let turn = 0; turn < this.#domains.length; turn++) {
      if (this.#domains[(first + turn) % this.#domains.length].poll()) return true;
    }
    return false;
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

  #ports(id: number) {
    return this.xen.ports(
      domainId(id),
      (words, index, value) => {
        while (Atomics.load(words, index) === value) if (!this.step()) return false;
        return true;
      },
      this.#tracer,
    );
  }
}
