// What a guest of the tests knows of itself: an ordinary one on Arm without a device tree, unless said otherwise.

import type { GuestFacts } from '../dma/policy.ts';
import type { GuestView } from './device-finder.ts';

/** A guest that requires grants. */
export function guestView(
  facts: Partial<GuestFacts> & Pick<GuestFacts, 'id'>,
  tree?: GuestView['tree'],
): GuestView {
  return {
    facts: {
      kind: 'pvh',
      architecture: 'arm',
      encryptedMemory: false,
      initialDomain: false,
      policy: 'require',
      domainZeroByDefault: false,
      ...facts,
    },
    tree,
  };
}
