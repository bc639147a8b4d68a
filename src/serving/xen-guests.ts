// Which guests are still there. A guest that dies leaves its pages to whoever maps them, and stays in the list of
// domains as "(null)" until they let go: a backend that misses a death keeps a dead guest's memory for ever (case C5).
// Used by xen-loop.ts.

import { type Xenstore, XenstoreError } from '../xen/xenstore.ts';

/** The store, as far as it tells of domains. */
export interface DomainList extends Pick<Xenstore, 'read'> {
  /** See XenstoreClient.isIntroduced. */
  isIntroduced(domain: number): Promise<boolean>;
}

/**
 * Whether a guest is still there. It is not when the toolstack has taken its home away, which it does first, or when
 * the store has forgotten it, which it does last, also where there is no toolstack any more. What this domain may not
 * know is taken for life.
 */
export async function guestLives(store: DomainList, guest: number): Promise<boolean> {
  const [hasHome, isIntroduced] = await Promise.all([
    unlessRefused(store.read(`/local/domain/${guest}`).then(() => true)),
    unlessRefused(store.isIntroduced(guest)),
  ]);
  return hasHome && isIntroduced;
}

async function unlessRefused(answer: Promise<boolean>): Promise<boolean> {
  try {
    return await answer;
  } catch (error) {
    if (!(error instanceof XenstoreError)) throw error;
    return error.code !== 'ENOENT';
  }
}
