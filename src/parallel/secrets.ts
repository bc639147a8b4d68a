// What else lies in a guest's kernel memory: objects of other subsystems, in the same heap pages from which
// the block driver takes its request headers. The demonstration plants them and lets a backend look.

import type { GuestHeap } from '../dma/guest-heap.ts';
import type { GuestMemory } from '../dma/guest-memory.ts';

/** How each of them begins, so that they can be recognised. */
export const SECRET_MARK = 'guest-key-';
/** Bytes of each: the heap's smallest size class, which request headers share. */
const SECRET_SIZE = 32;
const PLANTED = 1024;

/**
 * Fills the heap with secrets and frees every other one, as a kernel that has run for a while would: what is
 * allocated next lies between them.
 */
export function plantSecrets(heap: GuestHeap, memory: GuestMemory): void {
  const encoder = new TextEncoder();
  const free: number[] = [];
  for (let number = 0; number < PLANTED; number++) {
    const address = heap.allocate(SECRET_SIZE);
    if (address === undefined) break;
    if (number % 2 === 1) free.push(address);
    else {
      const secret = encoder.encode(`${SECRET_MARK}${`${number}`.padStart(4, '0')}-do-not-share!!!`);
      memory.bytes(address, secret.length).set(secret);
    }
  }
  for (const address of free) heap.free(address, SECRET_SIZE);
}
