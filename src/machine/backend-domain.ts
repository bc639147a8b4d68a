// A domain that serves devices to guests: each device is a window of registers in the guest's address space,
// its queues are served when the guest rings, and its reach is what the guest grants, or all of its memory where the
// toolstack gave the device without grants.
// After xen/backend-host.ts, before transports/virtio-mmio/device.ts.

import { MMIO_INTERRUPT_CONFIG, MMIO_INTERRUPT_VRING, MMIO_WINDOW_SIZE } from '../abi/virtio-mmio.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { ProtocolViolation } from '../errors.ts';
import type { DeviceMemory } from '../memory/device-memory.ts';
import { GrantCopyMemory } from '../memory/grant-copy-memory.ts';
import { GrantMemory, type MapMeter } from '../memory/grant-memory.ts';
import { PlainMemory } from '../memory/plain-memory.ts';
import { type NeedTracer, TracedMemory } from '../memory/traced-memory.ts';
import { MmioDevice } from '../transports/virtio-mmio/device.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { DeviceKeeper, KeptRegisters } from '../virtio/device-keeper.ts';
import { DeviceState } from '../virtio/device-state.ts';
import type { DeviceMeter } from '../virtqueue/queue-meter.ts';
import type { BackendHost, MmioServer } from '../xen/backend-host.ts';
import type { GrantCopier } from '../xen/grant-copier.ts';
import type { GrantMapper } from '../xen/grant-mapper.ts';
import type { DomainId } from '../xen/ids.ts';
import type { MmioHandler } from '../xen/mmio.ts';

/**
 * How a backend reaches buffers: it maps the granted pages in which they lie, or copies their bytes, or reaches all
 * of the guest's memory without grants (`plain`). It copies from grants of any kind; parts of pages it can only
 * copy. The backend's own choice, never the guest's.
 */
export type MemoryAccess = 'map' | 'copy' | 'plain';

/** Counts what a device does, and what is mapped for it. */
export type ServedMeter = DeviceMeter & MapMeter;

/** By what a backend reaches what was granted to it. */
interface GrantPorts {
  readonly mapper: GrantMapper;
  readonly copier: GrantCopier;
}

/** What a device reaches of its guest's memory. */
interface Reach {
  readonly memory: DeviceMemory;
  /** Whether that is only what the guest grants. */
  readonly restricted: boolean;
  close(): void;
}

/** How a device is served, where that is not as in the embedded Xen. */
interface ServeOptions {
  /** Interrupt line, where the host needs one. */
  readonly irq?: number | undefined;
  /** Keeps the device for a successor, and may have it from a predecessor. */
  readonly keeper?: DeviceKeeper | undefined;
  /** Told which bytes its requests and rings have in hand; nobody is unless given. */
  readonly needs?: NeedTracer | undefined;
  /** Nothing is counted unless given. */
  readonly meter?: ServedMeter | undefined;
}

/** One device at work for one guest. */
export class ServedDevice {
  readonly state: DeviceState;
  /** Whether a predecessor served it before. */
  readonly resumed: boolean;
  /** Called when the driver has broken a rule, which has broken the device until it is reset. */
  onBroken: (violation: ProtocolViolation) => void = () => undefined;
  readonly #server: MmioServer;
  readonly #reach: Reach;
  readonly #registers: MmioDevice;
  readonly #keeper: DeviceKeeper | undefined;
  readonly #meter: ServedMeter | undefined;
  /** Queues with more to do than one turn allowed, one bit each. */
  #backlogLow = 0;
  #backlogHigh = 0;

  constructor(
    host: BackendHost,
    reach: Reach,
    device: VirtioDevice,
    guest: DomainId,
    base: number,
    { irq, keeper, needs, meter }: ServeOptions,
  ) {
    this.#reach = reach;
    this.#keeper = keeper;
    this.#meter = meter;
    this.state = new DeviceState(
      device,
      needs === undefined ? reach.memory : new TracedMemory(reach.memory, needs),
      {
        interruptQueue: () => this.#server.interrupt(MMIO_INTERRUPT_VRING),
        interruptConfig: () => this.#server.interrupt(MMIO_INTERRUPT_CONFIG),
        broken: (violation) => this.onBroken(violation),
      },
      reach.restricted,
      keeper?.journals,
      meter,
    );
    this.#registers = new MmioDevice(this.state, () => this.#server.clearInterrupts());
    const answer = () => this.#answerDoorbell();
    const kept = keeper?.load();
    this.resumed = kept !== undefined;
    this.#server = host.serveMmio(guest, base, MMIO_WINDOW_SIZE, this.#handler(), answer, irq);
    if (kept !== undefined) this.#resume(kept);
  }

  /** Gives queues that were cut short another turn. Returns whether there were any. */
  serveBacklog(): boolean {
    const low = this.#backlogLow;
    const high = this.#backlogHigh;
    if ((low | high) === 0) return false;
    this.#backlogLow = this.#backlogHigh = 0;
    this.#serveQueues(low, high);
    return true;
  }

  /** Takes the device away: it lets go of everything it maps. */
  close(): void {
    this.state.reset();
    this.#server.close();
    this.#reach.close();
    this.#keeper?.forget();
  }

  /** Lets go of everything it maps, and leaves its registers to a successor: a guest that touches one waits for that. */
  leave(): void {
    this.state.leave();
    this.#reach.close();
    this.#keeper?.close();
  }

  /** The registers; what is written to them is kept before the guest goes on. */
  #handler(): MmioHandler {
    const registers = this.#registers;
    const keeper = this.#keeper;
    if (keeper === undefined) return registers;
    return {
      read: (offset, size) => registers.read(offset, size),
      write: (offset, size, value) => {
        registers.write(offset, size, value);
        keeper.save({ ...this.state.kept, selectors: registers.selectors });
      },
    };
  }

  /** Nobody knows of which completions the driver was told, and which of its notifications were taken. */
  #resume(kept: KeptRegisters): void {
    this.#registers.selectors = kept.selectors;
    this.state.resume(kept);
    if (!this.state.running) return;
    this.#backlogLow = this.#backlogHigh = -1;
    this.#server.interrupt(MMIO_INTERRUPT_VRING);
  }

  #answerDoorbell(): void {
    this.#meter?.notified();
    this.#serveQueues(this.#server.takeDoorbell(false), this.#server.takeDoorbell(true));
  }

  #serveQueues(low: number, high: number): void {
    for (let bits = low; bits !== 0; bits &= bits - 1) {
      const index = 31 - Math.clz32(bits & -bits);
      if (this.state.serve(index)) this.#backlogLow |= 1 << index;
    }
    for (let bits = high; bits !== 0; bits &= bits - 1) {
      const index = 31 - Math.clz32(bits & -bits);
      if (this.state.serve(32 + index)) this.#backlogHigh |= 1 << index;
    }
  }
}

/** The devices of one backend domain. Its thread calls `poll` again and again, and sleeps in between. */
export class BackendDomain<Ports extends BackendHost = BackendHost> {
  readonly ports: Ports;
  readonly #grants: GrantPorts;
  readonly #devices = new Set<ServedDevice>();

  /** @param grants by which grants are reached: those of the host, or some that look over its shoulder */
  constructor(ports: Ports, grants: GrantPorts = { mapper: ports.grantMapper, copier: ports.grantCopier }) {
    this.ports = ports;
    this.#grants = grants;
  }

  /**
   * Serves `device` to `guest` at `base` of its address space.
   *
   * @throws RangeError when this domain is to reach all of the guest's memory and is not its device model
   */
  serve(
    device: VirtioDevice,
    guest: DomainId,
    base: number,
    access: MemoryAccess = 'map',
    options: ServeOptions = {},
  ): ServedDevice {
    const { meter } = options;
    const reach = access === 'plain' ? this.#everything(guest, meter) : this.#granted(guest, access, meter);
    try {
      const served = new ServedDevice(this.ports, reach, device, guest, base, options);
      this.#devices.add(served);
      return served;
    } catch (error) {
      reach.close();
      throw error;
    }
  }

  #granted(guest: DomainId, access: 'map' | 'copy', meter: ServedMeter | undefined): Reach {
    const { id, tracer } = this.ports;
    const mapping = new GrantMemory(this.#grants.mapper, id, guest, tracer, meter);
    const memory =
      access === 'map' ? mapping : new GrantCopyMemory(mapping, this.#grants.copier, id, guest, tracer);
    return { memory, restricted: true, close: () => undefined };
  }

  #everything(guest: DomainId, meter: ServedMeter | undefined): Reach {
    const { region, base, close } = this.ports.mapForeignMemory(guest);
    const pages = region.byteLength / XEN_PAGE_SIZE;
    meter?.mapped(pages);
    const release = (): void => {
      close();
      meter?.mapped(-pages);
    };
    return { memory: new PlainMemory(region, base), restricted: false, close: release };
  }

  remove(device: ServedDevice): void {
    this.#devices.delete(device);
    device.close();
  }

  /** See ServedDevice.leave. */
  leave(device: ServedDevice): void {
    this.#devices.delete(device);
    device.leave();
  }

  /** Does what is waiting, a turn for each. Returns whether there was anything. */
  poll(): boolean {
    this.ports.park();
    let worked = this.ports.events.poll();
    for (const device of this.#devices) if (device.serveBacklog()) worked = true;
    return worked;
  }

  close(): void {
    for (const device of this.#devices) this.remove(device);
  }
}
