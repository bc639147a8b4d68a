// What a domain needs to grant pages to others. Between machine/guest-domain.ts, which puts it together, and grants.ts.

import type { Tracer } from '../trace.ts';
import type { GrantTable } from '../xen/grant-table.ts';
import type { DomainId } from '../xen/ids.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { IdlePools } from './idle-pools.ts';
import type { References } from './references.ts';

/** What a domain has for granting, shared by all its devices. */
export interface GrantingDomain {
  readonly id: DomainId;
  readonly memory: GuestMemory;
  readonly table: GrantTable;
  readonly references: References;
  readonly pools: IdlePools;
  readonly tracer: Tracer;
}
