// Who may be the device model of a guest: whoever is privileged, and the domains that the toolstack has named. Xen
// itself knows one such domain for each guest, its stub domain (XSM_DM_PRIV); a guest of ours may have a backend in
// each of several driver domains.

import type { DomainRecord } from '../domain-record.ts';
import type { Machine } from '../state.ts';
import { MachinePage } from './machine-page.ts';

/** Whether `caller` may serve devices of `guest`. */
export function mayServe(machine: Machine, caller: DomainRecord, guest: DomainRecord): boolean {
  return caller.privileged || new MachinePage(machine, guest).isModel(caller.id);
}
