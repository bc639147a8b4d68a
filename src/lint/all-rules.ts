// The rules of the linter, in the order in which they are listed.

import type { Rule } from './rule.ts';
import { AGREEMENT_RULES } from './rules/agreement.ts';
import { DISK_RULES } from './rules/disks.ts';
import { GRANT_RULES } from './rules/grants.ts';
import { GUEST_RULES } from './rules/guests.ts';
import { IOMMU_RULES } from './rules/iommu.ts';
import { MMIO_RULES } from './rules/mmio.ts';
import { STORE_RULES } from './rules/store.ts';
import { TREE_RULES } from './rules/tree.ts';
import { TRUST_RULES } from './rules/trust.ts';

/** All rules; their ids are unique. */
export const ALL_RULES: readonly Rule[] = [
  ...GUEST_RULES,
  ...DISK_RULES,
  ...GRANT_RULES,
  ...MMIO_RULES,
  ...TREE_RULES,
  ...IOMMU_RULES,
  ...STORE_RULES,
  ...TRUST_RULES,
  ...AGREEMENT_RULES,
];
