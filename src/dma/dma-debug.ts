// DMA debugging of one device, after Linux's CONFIG_DMA_API_DEBUG: remembers what its driver maps and
// allocates, and reports what the driver does wrong with it, with the stacks of both calls (cases G18, G19).
// Around any DMA operations; before dma-debug-checks.ts (what is wrong) and dma-debug-log.ts (who is told).
//
// An error changes nothing: the call goes no further, where the operations inside would stop with an
// assertion, and the driver goes on. So what it meant to end is still there, and is reported at its release.

import {
  DMA_MAPPING_ERROR_HALF,
  grantAddressFault,
  grantAddressOffset,
  grantAddressRef,
  isGrantAddress,
} from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import { DMA_BIDIRECTIONAL } from '../trace.ts';
import {
  type CoherentBuffer,
  DMA_ATTR_MMIO,
  DMA_ATTR_SKIP_CPU_SYNC,
  type DmaAddress,
  type DmaOperations,
} from './dma.ts';
import {
  allocateFault,
  freeFaults,
  isMappingError,
  leftBehind,
  mapFault,
  syncFaults,
  unknownAddress,
} from './dma-debug-checks.ts';
import { type DebugCall, DebugEntries, type DebugEntry } from './dma-debug-entries.ts';
import type { DebuggedDriver, DmaDebugLog } from './dma-debug-log.ts';
import type { QuarantineCounts } from './quarantine.ts';

/** The device under debugging. */
export interface DebuggedDevice extends DebuggedDriver {
  /** Its number in trace events. */
  readonly number: number;
  /** Whether all of its addresses name grants. */
  readonly restricted: boolean;
}

/** Watches the driver of one device. */
export class DmaDebug implements DmaOperations {
  readonly maxMappingSize: number;
  readonly #dma: DmaOperations;
  readonly #log: DmaDebugLog;
  readonly #device: DebuggedDevice;
  readonly #entries = new DebugEntries();

  /** @param dma the operations to watch */
  constructor(dma: DmaOperations, log: DmaDebugLog, device: DebuggedDevice) {
    this.maxMappingSize = dma.maxMappingSize;
    this.#dma = dma;
    this.#log = log;
    this.#device = device;
  }

  get live(): number {
    return this.#dma.live;
  }

  get quarantined(): number {
    return this.#dma.quarantined;
  }

  get quarantine(): QuarantineCounts {
    return this.#dma.quarantine;
  }

  supportsMask(bits: number): boolean {
    return this.#dma.supportsMask(bits);
  }

  allocate(size: number): CoherentBuffer | undefined {
    return this.#allocate(size, DMA_BIDIRECTIONAL, () => this.#dma.allocate(size));
  }

  allocatePages(count: number, direction: number): CoherentBuffer | undefined {
    return this.#allocate(count * XEN_PAGE_SIZE, direction, () => this.#dma.allocatePages(count, direction));
  }

  free(buffer: CoherentBuffer): boolean {
    if (this.#log.disabled) return this.#dma.free(buffer);
    const call: DebugCall = { ...buffer, kind: 'coherent', direction: DMA_BIDIRECTIONAL };
    return this.#end(call, () => this.#dma.free(buffer), buffer.address);
  }

  view(buffer: CoherentBuffer): Uint8Array {
    return this.#dma.view(buffer);
  }

  pagesOf(buffer: CoherentBuffer): DmaAddress[] {
    return this.#dma.pagesOf(buffer);
  }

  map(address: number, size: number, direction: number, out: DmaAddress, attributes = 0): boolean {
    if (this.#log.disabled) return this.#dma.map(address, size, direction, out, attributes);
    const stack = this.#log.stacks.take();
    const { base, region } = this.#log.guest.memory;
    const isMemory = address >= base && address + size <= base + region.byteLength;
    const fault = mapFault({ address, size, direction }, this.maxMappingSize, isMemory);
    if (fault !== undefined) {
      this.#log.error(this.#device, fault, stack);
      out.low = out.high = DMA_MAPPING_ERROR_HALF;
    }
    const mapped = fault === undefined && this.#dma.map(address, size, direction, out, attributes);
    const entry: DebugEntry = {
      kind: 'single',
      low: out.low,
      high: out.high,
      address,
      size,
      direction,
      stack,
    };
    if (mapped) this.#add(entry, (attributes & DMA_ATTR_SKIP_CPU_SYNC) !== 0);
    else this.#entries.fail(entry);
    return mapped;
  }

  /** Returns true for a buffer that is not mapped, false for one that is and stays so. */
  unmap(low: number, high: number, size: number, direction: number, attributes = 0): boolean {
    if (this.#log.disabled) return this.#dma.unmap(low, high, size, direction, attributes);
    const kind = attributes & DMA_ATTR_MMIO ? 'resource' : 'single';
    return this.#end({ kind, low, high, size, direction }, () =>
      this.#dma.unmap(low, high, size, direction, attributes),
    );
  }

  syncForCpu(low: number, high: number, size: number, direction: number, at = 0, length = size - at): void {
    if (this.#maySync({ kind: 'single', low, high, size, direction }, true, at, length))
      this.#dma.syncForCpu(low, high, size, direction, at, length);
  }

  syncForDevice(
    low: number,
    high: number,
    size: number,
    direction: number,
    at = 0,
    length = size - at,
  ): void {
    if (this.#maySync({ kind: 'single', low, high, size, direction }, false, at, length))
      this.#dma.syncForDevice(low, high, size, direction, at, length);
  }

  revokeIdle(): void {
    this.#dma.revokeIdle();
  }

  tick(now: number): number {
    return this.#dma.tick(now);
  }

  recover(): number {
    return this.#dma.recover();
  }

  forget(): void {
    this.#dma.forget();
  }

  /** Reports what the driver has left behind: it has let go of the device. */
  released(): void {
    const stack = this.#log.stacks.take();
    const entries = this.#entries.takeAll();
    if (this.#log.disabled) return;
    for (const entry of entries) {
      this.#log.error(this.#device, leftBehind(entry, entries.length), stack, entry.stack);
      this.#log.overlaps.remove(entry);
    }
    this.#log.uncount(entries.length);
  }

  close(): void {
    this.released();
    // What is idle is no reason to stop; what the driver has left behind is.
    this.#dma.revokeIdle();
    if (this.#dma.live === 0) this.#dma.close();
  }

  #allocate(
    size: number,
    direction: number,
    allocate: () => CoherentBuffer | undefined,
  ): CoherentBuffer | undefined {
    if (this.#log.disabled) return allocate();
    const stack = this.#log.stacks.take();
    const fault = allocateFault(size, direction);
    if (fault !== undefined) {
      this.#log.error(this.#device, fault, stack);
      return undefined;
    }
    const buffer = allocate();
    if (buffer !== undefined) this.#add({ ...buffer, kind: 'coherent', direction, stack }, false);
    return buffer;
  }

  /** @param mayOverlap whether the caller keeps what the device sees up to date by itself */
  #add(entry: DebugEntry, mayOverlap: boolean): void {
    const { guest, overlaps } = this.#log;
    if (guest.tracer.enabled && isGrantAddress(entry.high)) {
      const ref = grantAddressRef(entry.low, entry.high);
      const offset = grantAddressOffset(entry.low);
      guest.tracer.origin(guest.id, this.#device.number, ref, offset, entry.stack);
    }
    if (!this.#log.count()) return;
    const other = mayOverlap ? undefined : overlaps.conflictOf(entry);
    if (other !== undefined)
      this.#log.error(
        this.#device,
        "cacheline tracking EEXIST, overlapping mappings aren't supported",
        entry.stack,
        other.stack,
      );
    this.#entries.add(entry);
    overlaps.add(entry);
  }

  /** Ends a mapping or an allocation that is as the caller says. */
  #end(call: DebugCall, end: () => boolean, address?: number): boolean {
    const entry = this.#entries.find(call);
    if (entry === undefined) {
      this.#unknown(call, 'free');
      return true;
    }
    const faults = freeFaults(entry, call, address);
    if (faults.length > 0) {
      this.#errors(faults, entry);
      return false;
    }
    this.#entries.remove(entry);
    this.#log.overlaps.remove(entry);
    this.#log.uncount(1);
    return end();
  }

  #maySync(call: DebugCall, toCpu: boolean, at: number, length: number): boolean {
    if (this.#log.disabled) return true;
    const entry = this.#entries.find(call);
    if (entry?.kind !== 'single') {
      this.#unknown(call, 'sync');
      return false;
    }
    const faults = syncFaults(entry, call, toCpu, at, length);
    if (faults.length > 0) this.#errors(faults, entry);
    return faults.length === 0;
  }

  #errors(faults: readonly string[], entry: DebugEntry): void {
    const stack = this.#log.stacks.take();
    for (const fault of faults) this.#log.error(this.#device, fault, stack, entry.stack);
  }

  /** Nothing is at an address: it never was there, is not there any more, or could not be mapped. */
  #unknown(call: DebugCall, verb: 'free' | 'sync'): void {
    const failed = isMappingError(call) ? this.#entries.lastFailed(call) : undefined;
    const noGrant = this.#device.restricted ? grantAddressFault(call.high) : undefined;
    const before = failed ?? this.#entries.lastAt(call);
    this.#log.error(
      this.#device,
      unknownAddress(call, verb, failed !== undefined, noGrant),
      this.#log.stacks.take(),
      before?.stack,
    );
  }
}
