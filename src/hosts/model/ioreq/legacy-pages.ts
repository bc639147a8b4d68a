// Pages of a server that stand in the guest's address space, as device models had them before they could map them
// without (Xen arch/x86/hvm/ioreq.c). The toolstack sets frame numbers aside by parameters; while a server is on,
// the guest does not see its pages. For the holder of the device model's lock. Part of servers.ts.

import {
  HVM_PARAM_BUFIOREQ_PFN,
  HVM_PARAM_IOREQ_PFN,
  HVM_PARAM_IOREQ_SERVER_PFN,
} from '../../../abi/hvm-params.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { DomainRecord } from '../domain-record.ts';
import { EINVAL, ENOMEM, EOPNOTSUPP, EPERM } from '../errno.ts';
import { P2M_NONE, P2M_RAM, p2mEntry } from '../physmap.ts';
import type { Machine } from '../state.ts';
import { MachinePage } from './machine-page.ts';
import { BUFFERED_PAGE, type ServerPage, type ServerRecord, SYNCHRONOUS_PAGE } from './server-record.ts';

/** Pages that can be set aside at most, beside the two of old. */
export const MAX_SERVER_PAGES = 64;
const LEGACY_PARAMS = [HVM_PARAM_IOREQ_PFN, HVM_PARAM_BUFIOREQ_PFN];

/** Gives a server a page that was set aside. Returns 0, also when it has it already, or a negative errno. */
export function takeLegacyPage(
  machine: Machine,
  guest: DomainRecord,
  server: ServerRecord,
  page: ServerPage,
): number {
  if (guest.architecture === 'arm') return EOPNOTSUPP;
  if (server.frame(page) !== 0) return server.gfn(page) < 0 ? EPERM : 0;
  const gfn = takePlace(machine, guest);
  if (gfn < 0) return ENOMEM;
  const frame = guest.ownFrame(gfn);
  if (frame === 0) {
    givePlace(machine, guest, gfn);
    return EINVAL;
  }
  server.setFrame(page, frame);
  server.setGfn(page, gfn);
  return 0;
}

/** Takes such a page from its server. */
export function freeLegacyPage(
  machine: Machine,
  guest: DomainRecord,
  server: ServerRecord,
  page: ServerPage,
): void {
  givePlace(machine, guest, server.gfn(page));
  server.setFrame(page, 0);
  server.setGfn(page, -1);
}

/** Takes the server's pages out of the guest's sight. Returns false when the guest has moved one. */
export function hideLegacyPages(machine: Machine, guest: DomainRecord, server: ServerRecord): boolean {
  return movePages(machine, server, (gfn, entry) => guest.physmap.replace(gfn, entry, P2M_NONE));
}

/** Puts them back, wiped. A place that the guest has filled meanwhile stays as it is. */
export function showLegacyPages(machine: Machine, guest: DomainRecord, server: ServerRecord): boolean {
  return movePages(machine, server, (gfn, entry) => {
    guest.physmap.replace(gfn, P2M_NONE, entry);
    return true;
  });
}

function movePages(
  machine: Machine,
  server: ServerRecord,
  move: (gfn: number, entry: number) => boolean,
): boolean {
  let moved = true;
  for (const page of [SYNCHRONOUS_PAGE, BUFFERED_PAGE] as const) {
    const gfn = server.gfn(page);
    if (gfn < 0) continue;
    const frame = server.frame(page);
    if (!move(gfn, p2mEntry(frame, P2M_RAM))) moved = false;
    machine.memory.u8.fill(0, frame * XEN_PAGE_SIZE, (frame + 1) * XEN_PAGE_SIZE);
  }
  return moved;
}

/** A frame number that is set aside and free, the newer kind first; -1 without one. */
function takePlace(machine: Machine, guest: DomainRecord): number {
  const { heap } = machine;
  const page = new MachinePage(machine, guest);
  for (let index = 0; index < MAX_SERVER_PAGES; index++) {
    const word = page.freePagesWord + (index >>> 5);
    if (((heap[word] >>> (index & 31)) & 1) === 0) continue;
    heap[word] &= ~(1 << (index & 31));
    return Number(page.param(HVM_PARAM_IOREQ_SERVER_PFN)) + index;
  }
  for (const param of LEGACY_PARAMS) {
    if ((heap[page.freeLegacyPagesWord] & (1 << param)) === 0) continue;
    heap[page.freeLegacyPagesWord] &= ~(1 << param);
    return Number(page.param(param));
  }
  return -1;
}

function givePlace(machine: Machine, guest: DomainRecord, gfn: number): void {
  const { heap } = machine;
  const page = new MachinePage(machine, guest);
  const param = LEGACY_PARAMS.find((each) => Number(page.param(each)) === gfn);
  if (param !== undefined) heap[page.freeLegacyPagesWord] |= 1 << param;
  else {
    const index = gfn - Number(page.param(HVM_PARAM_IOREQ_SERVER_PFN));
    heap[page.freePagesWord + (index >>> 5)] |= 1 << (index & 31);
  }
}
