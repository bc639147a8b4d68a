// The Xen under this program: the domain in which it runs, as a backend needs it, through Linux's devices. Implements
// the port of xen/backend-host.ts; the other implementation is DomainPorts of the embedded Xen (hosts/model/xen.ts).
// Before all other files of this folder; the way to xenstore is a thing of its own (store.ts).

import { noTrace, type Tracer } from '../../../trace.ts';
import type { BackendHost, ForeignMemory, MmioServer } from '../../../xen/backend-host.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import type { Arena } from '../arena.ts';
import type { Libc } from '../libc.ts';
import { DeviceModels } from './device-model.ts';
import { EvtchnEvents } from './evtchn.ts';
import { mapForeignMemory } from './foreign-memory.ts';
import { Gntdev } from './gntdev.ts';
import { GntdevCopier } from './gntdev-copier.ts';
import { GntdevMapper } from './gntdev-mapper.ts';
import type { IoreqServerRecords } from './ioreq-records.ts';
import { Privcmd } from './privcmd.ts';

/** How a host is opened. */
export interface XenHostOptions {
  readonly libc: Libc;
  /** Some 64 KiB are taken of it, for as long as the host is open. */
  readonly arena: Arena;
  /** The domain that this is: `ownDomainId` of store.ts. */
  readonly id: DomainId;
  readonly tracer?: Tracer;
  /** Lets a program that takes the place of one that was killed go on serving the same guests. */
  readonly ioreqServers?: IoreqServerRecords;
}

/** One thread's Xen. */
export class XenHost implements BackendHost {
  readonly id: DomainId;
  readonly tracer: Tracer;
  readonly grantMapper: GntdevMapper;
  readonly grantCopier: GntdevCopier;
  readonly events: EvtchnEvents;
  /** What can be read when `events.poll()` has something to do. */
  readonly descriptors: readonly number[];
  readonly #libc: Libc;
  readonly #gntdev: Gntdev;
  readonly #privcmd: Privcmd;
  readonly #models: DeviceModels;

  /** @param devices those of this host, which are its own from now on */
  constructor(options: XenHostOptions, devices: { events: EvtchnEvents; gntdev: Gntdev; privcmd: Privcmd }) {
    const { libc, arena, id, tracer = noTrace, ioreqServers } = options;
    const { events, gntdev, privcmd } = devices;
    this.id = id;
    this.tracer = tracer;
    this.events = events;
    this.descriptors = [events.fd];
    this.#libc = libc;
    this.#gntdev = gntdev;
    this.#privcmd = privcmd;
    this.grantMapper = new GntdevMapper({ libc, arena, gntdev, id, tracer });
    this.grantCopier = new GntdevCopier({ libc, gntdev, id, tracer });
    const records = ioreqServers === undefined ? {} : { records: ioreqServers };
    this.#models = new DeviceModels({ libc, privcmd, events, id, ...records });
  }

  park(): void {
    // Xen stops the processors of a paused domain itself.
  }

  serveMmio(
    guest: DomainId,
    base: number,
    size: number,
    handler: MmioHandler,
    onDoorbell: () => void,
    irq?: number,
  ): MmioServer {
    return this.#models.serve(guest, base, size, handler, onDoorbell, irq);
  }

  mapForeignMemory(guest: DomainId): ForeignMemory {
    const { id, tracer } = this;
    return mapForeignMemory({ libc: this.#libc, privcmd: this.#privcmd, id, tracer }, guest);
  }

  /**
   * Lets go of everything. Devices are to be removed first; those that were not lose their memory under their feet.
   *
   * @param options.keepServers whether ioreq servers stay in Xen for a successor, for which guests that touch a register
   *   then wait
   */
  close(options: { readonly keepServers: boolean } = { keepServers: false }): void {
    this.#models.close(options.keepServers);
    this.grantMapper.close();
    this.grantCopier.close();
    this.events.closeAll();
    this.#gntdev.close();
    this.#privcmd.close();
  }
}

/** Opens the Xen under this program. Throws XenUnavailable, and then nothing is left open. */
export function openXenHost(options: XenHostOptions): XenHost {
  const { libc, arena } = options;
  const opened: (() => void)[] = [];
  try {
    const privcmd = new Privcmd(libc, arena);
    opened.push(() => privcmd.close());
    const gntdev = new Gntdev(libc, arena);
    opened.push(() => gntdev.close());
    const events = new EvtchnEvents(libc, arena);
    opened.push(() => events.closeAll());
    return new XenHost(options, { events, gntdev, privcmd });
  } catch (error) {
    for (const close of opened) close();
    throw error;
  }
}
