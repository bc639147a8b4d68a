// A transaction that others got in the way of is run again: one rule for both implementations of the port.

import { XenstoreError } from '../xen/xenstore.ts';

/** How often a transaction is tried before its conflicts are the caller's business. */
const ATTEMPTS = 64;

/** What `attempt` resolves with, as soon as it does not reject with EAGAIN. */
export async function retried<T>(attempt: () => Promise<T>): Promise<T> {
  for (let left = ATTEMPTS - 1; ; left--) {
    try {
      return await attempt();
    } catch (error) {
      if (left === 0 || !(error instanceof XenstoreError) || error.code !== 'EAGAIN') throw error;
    }
  }
}
