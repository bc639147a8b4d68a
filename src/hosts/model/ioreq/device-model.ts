// A backend as the device model of one guest: one ioreq server for all its devices there, each with a window of
// registers. It gets its page and its event channels as any device model does (dm_op, XENMEM_acquire_resource,
// EVTCHNOP_bind_interdomain), and asks for its windows to be accelerated.
// After machine/backend-domain.ts; before servers.ts and windows.ts.

import { HVM_IOREQSRV_BUFIOREQ_OFF, XEN_DMOP_IO_RANGE_MEMORY } from '../../../abi/dm-op.ts';
import {
  IOREQ_DATA_IS_PTR,
  IOREQ_DF,
  IOREQ_READ,
  ioreq,
  STATE_IOREQ_INPROCESS,
  STATE_IOREQ_READY,
  STATE_IORESP_READY,
} from '../../../abi/ioreq.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { MmioServer } from '../../../xen/backend-host.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import type { DomainEvents } from '../events/domain-events.ts';
import type { DomainRecord } from '../domain-record.ts';
import type { Domains } from '../domains.ts';
import { EEXIST, EPERM } from '../errno.ts';
import type { EventOps } from '../events/event-ops.ts';
import { addForeign, removeForeign } from '../foreign-pages.ts';
import { p2mFrame } from '../physmap.ts';
import type { Machine } from '../state.ts';
import { mayServe } from './rights.ts';
import { stateOf } from './requests.ts';
import type { IoreqServers } from './servers.ts';
import { SYNCHRONOUS_PAGE } from './server-record.ts';
import { releaseOrphans, type Window } from './windows.ts';

const STATE_WORD = ioreq.offsetOf('_pad0') / 4;
const DATA_WORD = ioreq.offsetOf('data') / 4;
const PORT_WORD = ioreq.offsetOf('vp_eport') / 4;
const STATE_SHIFT = 16;
const STATE_BITS = 0x0f << STATE_SHIFT;
const ALL_ONES = 0xffff_ffff;
/** Repetitions of an access at most: Xen sends no more than fit into a page. */
const MAX_COUNT = XEN_PAGE_SIZE;
/** Registers lie below 4 GiB. */
const ADDRESS_SPACE = 2 ** 32;

/** What a backend's device models need of the domain that they run in. */
export interface EmulatorOptions {
  readonly machine: Machine;
  readonly domains: Domains;
  readonly servers: IoreqServers;
  readonly eventOps: EventOps;
  readonly events: DomainEvents;
  readonly emulator: DomainRecord;
}

/** The ioreq server of one backend for one guest. */
class DeviceModel {
  readonly #options: EmulatorOptions;
  readonly guest: DomainRecord;
  readonly id: number;
  readonly #gfn: number;
  readonly #ports: EventPort[] = [];
  readonly #devices = new Set<DomainMmioServer>();
  readonly #page: number;
  #windows = 0;
  #closed = false;

  /** @throws RangeError when it is not allowed or something is used up; nothing is left behind then */
  constructor(options: EmulatorOptions, guest: DomainRecord) {
    const { servers, emulator, machine } = options;
    this.#options = options;
    this.guest = guest;
    if (!mayServe(machine, emulator, guest)) throw refused(emulator, guest, EPERM);
    this.id = servers.create(emulator, guest, HVM_IOREQSRV_BUFIOREQ_OFF);
    if (this.id < 0) throw refused(emulator, guest, this.id);
    this.#gfn = emulator.map.deviceModel + guest.id;
    try {
      this.#page = this.#mapPage();
      servers.setState(emulator, guest, this.id, true);
      for (let vcpu = 0; vcpu < guest.vcpus; vcpu++) this.#bind(vcpu);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get idle(): boolean {
    return this.#devices.size === 0;
  }

  add(device: DomainMmioServer): void {
    this.#devices.add(device);
    this.#windows = this.#options.servers.windowTable(this.guest, this.id);
  }

  remove(device: DomainMmioServer): void {
    this.#devices.delete(device);
  }

  close(): void {
    this.#closed = true;
    const { machine, domains, servers, emulator, events } = this.#options;
    for (const port of this.#ports) events.close(port);
    servers.destroy(emulator, this.guest, this.id);
    removeForeign(machine, domains, emulator, this.#gfn);
    // Where the guest has gone first, the windows were left to this domain.
    if (this.#windows !== 0) releaseOrphans(machine, emulator, this.#windows);
  }

  /** Maps the page of the processors' requests. Returns the index of its first word in the machine's memory. */
  #mapPage(): number {
    const { machine, domains, servers, emulator } = this.#options;
    const mapped = servers.withFrame(emulator, this.guest, this.id, SYNCHRONOUS_PAGE, (frame) =>
      addForeign(machine, domains, emulator, this.#gfn, this.guest, frame) ? 0 : EEXIST,
    );
    if (mapped < 0) throw refused(emulator, this.guest, mapped);
    return (p2mFrame(emulator.physmap.get(this.#gfn)) * XEN_PAGE_SIZE) / 4;
  }

  #bind(vcpu: number): void {
    const { machine, events, emulator } = this.#options;
    const remote = machine.memory.u32[this.#request(vcpu) + PORT_WORD];
    const port = events.bindInterdomain(this.guest.id, remote as EventPort);
    if (port < 0) throw new RangeError(`domain ${emulator.id} has no event channels left`);
    this.#ports.push(port);
    events.onEvent(port, () => this.#serve(vcpu));
  }

  /** Index of the first word of a processor's request. */
  #request(vcpu: number): number {
    return this.#page + (vcpu * ioreq.size) / 4;
  }

  /** Answers the access of a processor, if one waits. */
  #serve(vcpu: number): void {
    const { i32 } = this.#options.machine.memory;
    const state = this.#request(vcpu) + STATE_WORD;
    const word = Atomics.load(i32, state);
    if (stateOf(word) !== STATE_IOREQ_READY) return;
    const begun = (word & ~STATE_BITS) | (STATE_IOREQ_INPROCESS << STATE_SHIFT);
    // Xen may withdraw a request that nobody has begun to answer.
    if (Atomics.compareExchange(i32, state, word, begun) !== word) return;
    this.#answer(this.#request(vcpu), word >>> STATE_SHIFT);
    if (this.#closed) return;
    Atomics.store(i32, state, (word & ~STATE_BITS) | (STATE_IORESP_READY << STATE_SHIFT));
    Atomics.notify(i32, state);
  }

  #answer(at: number, flags: number): void {
    const { memory } = this.#options.machine;
    const { addr, size, count } = ioreq.over(memory).at(at * 4);
    const times = Math.min(count, MAX_COUNT);
    const isRead = (flags & IOREQ_READ) !== 0;
    const step = (flags & IOREQ_DF) !== 0 ? -size : size;
    // A restricted backend does not reach the guest's memory: what would go there or come from there is lost.
    const device = (flags & IOREQ_DATA_IS_PTR) === 0 ? this.#deviceAt(addr) : undefined;
    for (let index = 0; index < times && device !== undefined; index++)
      this.#access(device, at + DATA_WORD, addr + index * step - device.base, size, isRead);
    if (device !== undefined || !isRead) return;
    memory.u32[at + DATA_WORD] = ALL_ONES;
    memory.u32[at + DATA_WORD + 1] = ALL_ONES;
  }

  /** One access to a device's registers; 8 bytes are two of 4. */
  #access({ handler }: DomainMmioServer, data: number, offset: number, size: number, isRead: boolean): void {
    const { u32 } = this.#options.machine.memory;
    const width = Math.min(size, 4);
    for (let part = 0; part < (size === 8 ? 2 : 1) && !this.#closed; part++) {
      if (!isRead) handler.write(offset + part * width, width, u32[data + part]);
      else {
        const value = handler.read(offset + part * width, width);
        // A handler that ends the last device gives the page back.
        if (!this.#closed) u32[data + part] = value;
      }
    }
  }

  #deviceAt(address: number): DomainMmioServer | undefined {
    for (const device of this.#devices)
      if (address >= device.base && address < device.base + device.size) return device;
    return undefined;
  }
}

/** The device models that run in one domain, one for each guest. */
export class DeviceModels {
  readonly #options: EmulatorOptions;
  readonly #models = new Map<DomainRecord, DeviceModel>();

  constructor(options: EmulatorOptions) {
    this.#options = options;
  }

  /**
   * Has this domain answer accesses of `guest` to `size` bytes from `base`.
   *
   * @param onDoorbell called when queues were notified
   * @throws RangeError when the place is taken or impossible, something is used up, or this domain is no device
   *   model of the guest
   */
  serve(
    guest: DomainRecord,
    base: number,
    size: number,
    handler: MmioHandler,
    onDoorbell: () => void,
  ): MmioServer {
    if (!(size > 0 && base >= 0 && base + size <= ADDRESS_SPACE))
      throw new RangeError(
        `registers at 0x${base.toString(16)}, ${size} bytes: expected 1 or more below 4 GiB`,
      );
    const model = this.#models.get(guest) ?? new DeviceModel(this.#options, guest);
    this.#models.set(guest, model);
    try {
      const server = this.#open(model, base, size, handler, onDoorbell);
      model.add(server);
      return server;
    } finally {
      this.#closeIdle(model);
    }
  }

  #open(
    model: DeviceModel,
    base: number,
    size: number,
    handler: MmioHandler,
    onDoorbell: () => void,
  ): DomainMmioServer {
    const { servers, emulator, events, eventOps } = this.#options;
    const { guest, id } = model;
    const range = [XEN_DMOP_IO_RANGE_MEMORY, BigInt(base), BigInt(base + size - 1)] as const;
    const mapped = servers.mapRange(emulator, guest, id, ...range);
    if (mapped === EEXIST)
      throw new RangeError(`domain ${guest.id} has a device at 0x${base.toString(16)} already`);
    if (mapped < 0) throw refused(emulator, guest, mapped);
    const port = events.allocateUnbound(guest.id as DomainId);
    const window = port < 0 ? port : servers.accelerate(emulator, guest, id, base, size, port);
    if (typeof window !== 'number') {
      events.onEvent(port, onDoorbell);
      const end = (server: DomainMmioServer) => {
        servers.unmapRange(emulator, guest, id, ...range);
        events.close(port);
        model.remove(server);
        this.#closeIdle(model);
      };
      return new DomainMmioServer(eventOps, guest, window, handler, end);
    }
    // A refusal leaves nothing behind; closing what was not allocated is refused in turn.
    events.close(port);
    servers.unmapRange(emulator, guest, id, ...range);
    if (port < 0) throw new RangeError(`domain ${emulator.id} has no event channels left`);
    throw refused(emulator, guest, window);
  }

  #closeIdle(model: DeviceModel): void {
    if (!model.idle) return;
    model.close();
    this.#models.delete(model.guest);
  }
}

/** The device model's end of one window. */
class DomainMmioServer implements MmioServer {
  readonly base: number;
  readonly size: number;
  readonly handler: MmioHandler;
  readonly #events: EventOps;
  readonly #guest: DomainRecord;
  readonly #window: Window;
  readonly #end: (server: DomainMmioServer) => void;

  constructor(
    events: EventOps,
    guest: DomainRecord,
    window: Window,
    handler: MmioHandler,
    end: (server: DomainMmioServer) => void,
  ) {
    this.base = window.base;
    this.size = window.size;
    this.handler = handler;
    this.#events = events;
    this.#guest = guest;
    this.#window = window;
    this.#end = end;
  }

  takeDoorbell(high: boolean): number {
    return this.#window.takeDoorbell(high);
  }

  interrupt(bits: number): void {
    this.#window.setInterrupts(bits);
    const port = this.#window.interruptPort;
    if (port > 0 && this.#guest.alive) this.#events.raise(this.#guest, port);
  }

  clearInterrupts(): void {
    this.#window.clearInterrupts(-1);
  }

  close(): void {
    this.#end(this);
  }
}

function refused(emulator: DomainRecord, guest: DomainRecord, result: number): RangeError {
  const why =
    result === EPERM ? `it was not named as a device model, nor is it privileged` : `error ${result}`;
  return new RangeError(`domain ${emulator.id} cannot serve devices of domain ${guest.id}: ${why}`);
}
