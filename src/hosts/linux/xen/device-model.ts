// A real host as the device model of guests: one ioreq server for each guest, whose page has one request for each of
// the guest's processors, with an event channel each (public/hvm/ioreq.h, dm_op.h). Its counterpart in the embedded Xen
// is hosts/model/ioreq/device-model.ts. After machine/backend-domain.ts; before dm-ops.ts and register-window.ts.
//
// A server outlives its process: what is said in ioreq-records.ts.

import { constants } from 'node:os';
import {
  IOREQ_DATA_IS_PTR,
  IOREQ_DF,
  IOREQ_READ,
  IOREQ_STATE_MASK,
  IOREQ_TYPE_COPY,
  ioreq,
  STATE_IOREQ_INPROCESS,
  STATE_IOREQ_READY,
  STATE_IORESP_READY,
} from '../../../abi/ioreq.ts';
import {
  XENMEM_resource_ioreq_server,
  XENMEM_resource_ioreq_server_frame_ioreq,
} from '../../../abi/memory-op.ts';
import { type Region, regionOver } from '../../../abi/region.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { MmioServer } from '../../../xen/backend-host.ts';
import type { DomainId, EventPort } from '../../../xen/ids.ts';
import type { MmioHandler } from '../../../xen/mmio.ts';
import type { Libc } from '../libc.ts';
import { DmOps } from './dm-ops.ts';
import { domainInfo } from './domain-info.ts';
import type { EvtchnEvents } from './evtchn.ts';
import { interruptLine } from './interrupt-line.ts';
import type { IoreqServerRecords } from './ioreq-records.ts';
import type { Privcmd } from './privcmd.ts';
import { RegisterWindow } from './register-window.ts';

const { EEXIST, EPERM } = constants.errno;
const STATE_WORD = ioreq.offsetOf('_pad0') / 4;
const DATA_WORD = ioreq.offsetOf('data') / 4;
const PORT_WORD = ioreq.offsetOf('vp_eport') / 4;
const STATE_SHIFT = 16;
const STATE_BITS = IOREQ_STATE_MASK << STATE_SHIFT;
const TYPE_SHIFT = 24;
const ALL_ONES = 0xffff_ffff;
/** Repetitions of an access at most: Xen sends no more than fit into a page. */
const MOST_TIMES = XEN_PAGE_SIZE;
/** Processors for which a page has room. */
const MOST_VCPUS = XEN_PAGE_SIZE / ioreq.size;
/** Registers lie below 4 GiB. */
const ADDRESS_SPACE = 2 ** 32;

/** What device models need of their host. */
export interface DeviceModelParts {
  readonly libc: Libc;
  readonly privcmd: Privcmd;
  readonly events: EvtchnEvents;
  /** The domain that this is. */
  readonly id: DomainId;
  readonly records?: IoreqServerRecords;
}

/** The ioreq server of one guest. */
class GuestServer {
  readonly ops: DmOps;
  readonly id: number;
  /** Whether a process before this one made it. */
  readonly inherited: boolean;
  readonly windows = new Set<RegisterWindow>();
  readonly #parts: DeviceModelParts;
  readonly #ports: EventPort[] = [];
  readonly #page: Region;
  readonly #request: ReturnType<typeof ioreq.over>;
  #closed = false;

  /** @throws RangeError when it is not allowed or something is used up; nothing new is left behind then */
  constructor(parts: DeviceModelParts, ops: DmOps) {
    this.#parts = parts;
    this.ops = ops;
    const kept = parts.records?.load(ops.guest);
    this.inherited = kept !== undefined && ops.findIoreqServer(kept) === 0;
    this.id = this.inherited ? kept! : this.#succeeded(ops.createIoreqServer());
    parts.records?.save(ops.guest, this.id);
    let address = 0;
    try {
      address = this.#mapPage();
      this.#page = regionOver(parts.libc.view(address, XEN_PAGE_SIZE), 0, XEN_PAGE_SIZE, address);
      this.#request = ioreq.over(this.#page.u8);
      this.#succeeded(ops.enableIoreqServer(this.id));
      const vcpus = this.#succeeded(ops.vcpus());
      if (vcpus > MOST_VCPUS)
        throw new RangeError(`domain ${ops.guest} has ${vcpus} processors, at most ${MOST_VCPUS} are served`);
      for (let vcpu = 0; vcpu < vcpus; vcpu++) this.#bind(vcpu);
    } catch (error) {
      this.#release(address, this.inherited);
      throw error;
    }
  }

  /**
   * Ends it.
   *
   * @param keep whether Xen is to keep the server, with its ranges and with what waits there, for a successor
   */
  close(keep: boolean): void {
    this.#release(this.#page.address, keep);
  }

  #release(address: number, keep: boolean): void {
    this.#closed = true;
    const { events, privcmd, records } = this.#parts;
    for (const port of this.#ports) events.close(port);
    if (address > 0) privcmd.unmap(address, 1);
    if (keep) return;
    // Where the guest has gone first, the server went with it.
    this.ops.destroyIoreqServer(this.id);
    records?.save(this.ops.guest, undefined);
  }

  /** Maps the page of the processors' requests. */
  #mapPage(): number {
    const frame = XENMEM_resource_ioreq_server_frame_ioreq;
    const { guest } = this.ops;
    return this.#succeeded(
      this.#parts.privcmd.mapResource(guest, XENMEM_resource_ioreq_server, this.id, frame),
    );
  }

  #bind(vcpu: number): void {
    const { events } = this.#parts;
    const remote = this.#page.u32[this.#word(vcpu) + PORT_WORD] as EventPort;
    const port = events.bindInterdomain(this.ops.guest, remote);
    if (port < 0)
      throw new RangeError(
        `the event channel of processor ${vcpu} of domain ${this.ops.guest} cannot be bound (error ${port})` +
          (this.inherited ? ': is another program serving this domain?' : ''),
      );
    this.#ports.push(port);
    // What a predecessor had begun is done once more: registers say the same, or are set to the same.
    let mayHaveBegun = this.inherited;
    events.onEvent(port, () => {
      this.#serve(vcpu, port, mayHaveBegun);
      mayHaveBegun = false;
    });
  }

  /** Index of the first word of a processor's request. */
  #word(vcpu: number): number {
    return (vcpu * ioreq.size) / 4;
  }

  /** Answers the access of a processor, if one waits, and then tells those who were notified by it. */
  #serve(vcpu: number, port: EventPort, mayHaveBegun: boolean): void {
    const { i32 } = this.#page;
    const at = this.#word(vcpu) + STATE_WORD;
    const word = Atomics.load(i32, at);
    const state = (word & STATE_BITS) >>> STATE_SHIFT;
    if (state !== STATE_IOREQ_READY && !(mayHaveBegun && state === STATE_IOREQ_INPROCESS)) return;
    Atomics.store(i32, at, (word & ~STATE_BITS) | (STATE_IOREQ_INPROCESS << STATE_SHIFT));
    const window = this.#answer(this.#word(vcpu), word);
    if (this.#closed) return;
    Atomics.store(i32, at, (word & ~STATE_BITS) | (STATE_IORESP_READY << STATE_SHIFT));
    this.#parts.events.send(port);
    window?.ring();
  }

  /** Each field of the request is read once. Returns the window that was meant. */
  #answer(at: number, word: number): RegisterWindow | undefined {
    const { addr, size, count } = this.#request.at(at * 4);
    const flags = (word >>> STATE_SHIFT) & 0xff;
    const isRead = (flags & IOREQ_READ) !== 0;
    const isPlain = word >>> TYPE_SHIFT === IOREQ_TYPE_COPY && (flags & IOREQ_DATA_IS_PTR) === 0;
    // What lies in the guest's memory cannot be reached: it goes nowhere, and nothing comes from there.
    const window = isPlain ? this.#windowAt(addr) : undefined;
    if (window === undefined) {
      if (isRead) this.#page.u32.fill(ALL_ONES, at + DATA_WORD, at + DATA_WORD + 2);
      return undefined;
    }
    const step = (flags & IOREQ_DF) !== 0 ? -size : size;
    const times = Math.min(count, MOST_TIMES);
    for (let index = 0; index < times && !this.#closed; index++)
      this.#access(window, at + DATA_WORD, addr + index * step - window.base, size, isRead);
    return window;
  }

  /** One access to a device's registers; 8 bytes are two of 4. Beside the window nothing is. */
  #access(window: RegisterWindow, data: number, offset: number, size: number, isRead: boolean): void {
    const { u32 } = this.#page;
    const width = Math.min(size, 4);
    for (let part = 0; part < (size === 8 ? 2 : 1) && !this.#closed; part++) {
      const place = offset + part * width;
      const isInside = place >= 0 && place + width <= window.size;
      if (!isRead) {
        if (isInside) window.write(place, width, lowBytes(u32[data + part], width));
        continue;
      }
      const value = isInside ? window.read(place, width) : ALL_ONES;
      // A handler that ends the last device gives the page back.
      if (!this.#closed) u32[data + part] = value;
    }
  }

  #windowAt(address: number): RegisterWindow | undefined {
    for (const window of this.windows)
      if (address >= window.base && address < window.base + window.size) return window;
    return undefined;
  }

  #succeeded(result: number): number {
    if (result < 0) throw refused(this.#parts.id, this.ops.guest, result);
    return result;
  }
}

/** The device models of this domain. */
export class DeviceModels {
  readonly #parts: DeviceModelParts;
  readonly #servers = new Map<DomainId, GuestServer>();

  constructor(parts: DeviceModelParts) {
    this.#parts = parts;
  }

  /** What BackendHost.serveMmio promises. */
  serve(
    guest: DomainId,
    base: number,
    size: number,
    handler: MmioHandler,
    onDoorbell: () => void,
    irq: number | undefined,
  ): MmioServer {
    if (!(size > 0 && base >= 0 && base + size <= ADDRESS_SPACE))
      throw new RangeError(
        `registers at 0x${base.toString(16)}, ${size} bytes: expected 1 or more below 4 GiB`,
      );
    const { libc, privcmd } = this.#parts;
    const ops = new DmOps(privcmd, guest);
    // First of all: whether it is safe at all.
    const line = interruptLine(ops, () => domainInfo(libc, privcmd, guest), irq);
    const server = this.#servers.get(guest) ?? new GuestServer(this.#parts, ops);
    this.#servers.set(guest, server);
    try {
      this.#mapRange(server, base, size);
      const end = (window: RegisterWindow) => this.#end(server, window);
      const window = new RegisterWindow({ base, size, handler, onDoorbell, line, end });
      server.windows.add(window);
      return window;
    } finally {
      this.#closeIdle(server);
    }
  }

  /** Ends all of them; `keep` as in IoreqServerRecords: a successor goes on with them. */
  close(keep: boolean): void {
    for (const server of this.#servers.values()) server.close(keep);
    this.#servers.clear();
  }

  #mapRange({ ops, id, inherited, windows }: GuestServer, base: number, size: number): void {
    const isTaken = [...windows].some((each) => base < each.base + each.size && each.base < base + size);
    const result = isTaken ? -EEXIST : ops.mapRange(id, base, size);
    // A predecessor's.
    if (result === -EEXIST && inherited && !isTaken) return;
    if (result === -EEXIST)
      throw new RangeError(`domain ${ops.guest} has a device at 0x${base.toString(16)} already`);
    if (result < 0) throw refused(this.#parts.id, ops.guest, result);
  }

  #end(server: GuestServer, window: RegisterWindow): void {
    if (!server.windows.delete(window)) return;
    server.ops.unmapRange(server.id, window.base, window.size);
    this.#closeIdle(server);
  }

  #closeIdle(server: GuestServer): void {
    if (server.windows.size > 0) return;
    server.close(false);
    this.#servers.delete(server.ops.guest);
  }
}

function lowBytes(word: number, width: number): number {
  return width === 4 ? word : word & (2 ** (8 * width) - 1);
}

function refused(id: DomainId, guest: DomainId, result: number): RangeError {
  const why = result === -EPERM ? 'it is not named as its device model, nor privileged' : `error ${result}`;
  return new RangeError(`domain ${id} cannot serve devices of domain ${guest}: ${why}`);
}
