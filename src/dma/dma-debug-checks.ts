// What can be wrong with a call, in the words of Linux's kernel/dma/debug.c: pure functions from a call, and
// the mapping it is about, to messages. Used by dma-debug.ts.
//
// A call of Linux's may be wrong in several ways at once, and each is an error of its own. The last few
// messages of a kind are ours, for what Linux's API cannot get wrong.

import { DMA_MAPPING_ERROR_HALF } from '../abi/grant-address.ts';
import { DMA_BIDIRECTIONAL, DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { DebugCall, DebugEntry } from './dma-debug-entries.ts';

const DIRECTIONS = ['DMA_BIDIRECTIONAL', 'DMA_TO_DEVICE', 'DMA_FROM_DEVICE'];

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

function directionName(direction: number): string {
  return DIRECTIONS[direction] ?? 'DMA_NONE';
}

function deviceAddress({ low, high }: Pick<DebugEntry, 'low' | 'high'>): string {
  return `[device address=0x${hex(high, 8)}${hex(low, 8)}]`;
}

function place(call: Pick<DebugEntry, 'low' | 'high' | 'size'>): string {
  return `${deviceAddress(call)} [size=${call.size} bytes]`;
}

/** Whether an address is what a failed mapping has. */
export function isMappingError({ low, high }: Pick<DebugEntry, 'low' | 'high'>): boolean {
  return low === DMA_MAPPING_ERROR_HALF && high === DMA_MAPPING_ERROR_HALF;
}

/** What is wrong with a buffer to map; undefined: nothing. */
export function mapFault(
  { address, size, direction }: Pick<DebugEntry, 'address' | 'size' | 'direction'>,
  maxSize: number,
  isMemory: boolean,
): string | undefined {
  if (direction < DMA_BIDIRECTIONAL || direction > DMA_FROM_DEVICE)
    return `device driver maps memory with invalid direction [direction=${direction}]`;
  if (!(size > 0)) return `device driver maps memory of invalid size [len=${size}]`;
  if (size > maxSize)
    return `mapping segment longer than device claims to support [len=${size}] [max=${maxSize}]`;
  if (!isMemory)
    return `device driver maps memory from invalid area [addr=0x${hex(address, 16)}] [len=${size}]`;
  return undefined;
}

/** What is wrong with an allocation of `size` bytes; undefined: nothing. */
export function allocateFault(size: number, direction: number): string | undefined {
  if (direction < DMA_BIDIRECTIONAL || direction > DMA_FROM_DEVICE)
    return `device driver allocates DMA memory with invalid direction [direction=${direction}]`;
  if (!(size > 0)) return `device driver allocates DMA memory of invalid size [len=${size}]`;
  return undefined;
}

/** The message for an address at which nothing is. `verb`: free or sync. `noGrant`: why it is no grant's. */
export function unknownAddress(
  call: DebugCall,
  verb: 'free' | 'sync',
  failed: boolean,
  noGrant: string | undefined,
): string {
  if (failed) return `device driver failed to check map error${place(call)} [mapped as ${call.kind}]`;
  if (isMappingError(call)) return `device driver tries to ${verb} an invalid DMA memory address`;
  if (noGrant !== undefined)
    return `device driver tries to ${verb} an invalid DMA memory address ${place(call)} [${noGrant}]`;
  return `device driver tries to ${verb} DMA memory it has not allocated ${place(call)}`;
}

/** What is wrong with a call that ends `entry`. `address` is the CPU's, where the call names one. */
export function freeFaults(entry: DebugEntry, call: DebugCall, address = entry.address): string[] {
  const faults: string[] = [];
  if (call.size !== entry.size)
    faults.push(
      `device driver frees DMA memory with different size ${deviceAddress(call)} [map size=${entry.size} bytes] [unmap size=${call.size} bytes]`,
    );
  if (call.kind !== entry.kind)
    faults.push(
      `device driver frees DMA memory with wrong function ${place(call)} [mapped as ${entry.kind}] [unmapped as ${call.kind}]`,
    );
  else if (address !== entry.address)
    faults.push(
      `device driver frees DMA memory with different CPU address ${place(call)} [cpu alloc address=0x${hex(entry.address, 16)}] [cpu free address=0x${hex(address, 16)}]`,
    );
  if (entry.kind === 'single' && call.kind !== 'coherent' && call.direction !== entry.direction)
    faults.push(
      `device driver frees DMA memory with different direction ${place(call)} [mapped with ${directionName(entry.direction)}] [unmapped with ${directionName(call.direction)}]`,
    );
  return faults;
}

/** What is wrong with a sync of `length` bytes from byte `at` of `entry`. */
export function syncFaults(
  entry: DebugEntry,
  call: DebugCall,
  toCpu: boolean,
  at: number,
  length: number,
): string[] {
  const faults: string[] = [];
  const directions = `${deviceAddress(call)} [size=${entry.size} bytes] [mapped with ${directionName(entry.direction)}] [synced with ${directionName(call.direction)}]`;
  if (at < 0 || length < 0 || at + length > entry.size)
    faults.push(
      `device driver syncs DMA memory outside allocated range ${deviceAddress(entry)} [allocation size=${entry.size} bytes] [sync offset+size=${at + length}]`,
    );
  else if (call.size !== entry.size)
    faults.push(
      `device driver syncs DMA memory with different size ${deviceAddress(call)} [map size=${entry.size} bytes] [sync size=${call.size} bytes]`,
    );
  if (call.direction === entry.direction) return faults;
  faults.push(`device driver syncs DMA memory with different direction ${directions}`);
  if (toCpu && entry.direction === DMA_TO_DEVICE)
    faults.push(`device driver syncs device read-only DMA memory for cpu ${directions}`);
  if (!toCpu && entry.direction === DMA_FROM_DEVICE)
    faults.push(`device driver syncs device write-only DMA memory to device ${directions}`);
  return faults;
}

/** The message for one of `count` entries that a driver leaves behind. */
export function leftBehind(entry: DebugEntry, count: number): string {
  const details = `${place(entry)} [mapped with ${directionName(entry.direction)}] [mapped as ${entry.kind}]`;
  return `device driver has pending DMA allocations while released from device [count=${count}]\nOne of leaked entries details: ${details}`;
}
