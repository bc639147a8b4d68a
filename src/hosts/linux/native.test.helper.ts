// The C library for tests, and why a machine has none: there the tests are skipped with that reason.

import { readdirSync, readFileSync } from 'node:fs';
import { type Region, regionOver } from '../../abi/region.ts';
import { Arena } from './arena.ts';
import { IoUring, IoUringUnavailable } from './io-uring.ts';
import { type Libc, loadLibc, NativeUnavailable } from './libc.ts';
import { TRANSFER_SCRATCH_SIZE, TransferScratch } from './transfer-scratch.ts';
import type { ImageHost } from './vectored-image.ts';

function tryLoad(): Libc | string {
  try {
    return loadLibc();
  } catch (error) {
    if (error instanceof NativeUnavailable) return error.message;
    throw error;
  }
}

const loaded = tryLoad();

/** Options of a test that calls the C library: `skip` has the reason where it cannot. */
export const native = { skip: typeof loaded === 'string' ? loaded : false };

function whyNoRing(): string | false {
  if (typeof loaded === 'string') return loaded;
  try {
    new IoUring(loaded, new Arena(loaded, 2 ** 20)).close();
    return false;
  } catch (error) {
    if (error instanceof IoUringUnavailable) return error.message;
    throw error;
  }
}

/** Options of a test that needs a real io_uring. */
export const uring = { skip: whyNoRing() };

/** The C library. To be called in a test with the options `native`. */
export function libcOfTest(): Libc {
  if (typeof loaded === 'string') throw new Error(loaded);
  return loaded;
}

/** Scratch memory of a test. */
export function arenaOfTest(libc = libcOfTest()): Arena {
  return new Arena(libc, 2 ** 20);
}

/** Descriptors that this process has open. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Mappings of this process whose line in /proc/self/maps has `name`. */
export function mappingsOf(name: string): number {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name)).length;
}

/** Mappings of this process that have a byte of `length` from `address` on. */
export function mappingsIn(address: number, length: number): number {
  const ranges = readFileSync('/proc/self/maps', 'utf8').match(/^[0-9a-f]+-[0-9a-f]+/gm) ?? [];
  return ranges.filter((range) => {
    const [start, end] = range.split('-').map((text) => Number.parseInt(text, 16));
    return start < address + length && end > address;
  }).length;
}

/** What a thread has for its images; with `fakes` in place of some calls. */
export function imageHost(fakes: Partial<Libc> = {}): ImageHost {
  const libc = { ...libcOfTest(), ...fakes };
  const arena = new Arena(libc, 2 ** 22 + TRANSFER_SCRATCH_SIZE);
  return { libc, arena, scratch: new TransferScratch(arena) };
}

/** Memory with an address, of whole pages. */
export function memoryOf({ libc, arena }: Pick<ImageHost, 'libc' | 'arena'>, length: number): Region {
  const { address } = arena.take(length, 4096);
  return regionOver(libc.view(address, length), 0, length, address);
}
