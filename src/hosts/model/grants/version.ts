// GNTTABOP_set_version of the embedded Xen. The table is emptied, save for the entries that belong to the toolstack
// (0-7), which are written anew in the other version's layout. Nobody may look at an entry meanwhile, so all of them
// are locked, in the order of their references: everyone else holds one lock at a time.

import {
  GRANT_ENTRIES_PER_FRAME_V1,
  GRANT_RESERVED_ENTRIES,
  GTF_INVALID,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_TRANSITIVE,
  GTF_TYPE_MASK,
  GTF_WRITING,
} from '../../../abi/grant.ts';
import { type DomainRecord, statusFramesFor } from '../domain-record.ts';
import { EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSYS, ERANGE } from '../errno.ts';
import { lock, unlock } from '../lock.ts';
import { type Machine, PAGE_WORDS } from '../state.ts';
import { ACTIVE_FRAME, ACTIVE_LOCK, ACTIVE_PINS } from './active-entry.ts';
import { headerWord, statusWord } from './shared-entry.ts';
import { growStatuses, removeStatuses } from './table-size.ts';

const IN_USE = GTF_READING | GTF_WRITING;

/** An entry of the toolstack, in the words of version 1. */
type Reserved = readonly [header: number, frame: number];

/** Switches a domain's table to `version`. Returns 0 or a negative errno, and then nothing has changed. */
export function setVersion(machine: Machine, domain: DomainRecord, version: number): number {
  if (version !== 1 && version !== 2) return EINVAL;
  if (version > domain.maxGrantVersion) return ENOSYS;
  const { heap } = machine;
  lock(heap, domain.grantLockWord);
  let result = 0;
  if (domain.grantVersion !== version) {
    lockEntries(heap, domain);
    result = switchTo(machine, domain, version);
    unlockEntries(heap, domain);
  }
  unlock(heap, domain.grantLockWord);
  return result;
}

function switchTo(machine: Machine, domain: DomainRecord, version: number): number {
  const { heap } = machine;
  for (let ref = GRANT_RESERVED_ENTRIES; ref < domain.grantEntries; ref++)
    if (heap[domain.activeEntry(ref) + ACTIVE_PINS] !== 0) return EBUSY;
  if (version === 1 && Atomics.load(heap, domain.v2OperationsWord) !== 0) return EAGAIN;
  const reserved = version === 2 ? reservedOfV1(machine, domain) : reservedOfV2(machine, domain);
  if (reserved === undefined) return ERANGE;
  if (version === 1 && references().some((ref) => pinsStatuses(heap, domain, ref))) return EBUSY;
  if (version === 2) {
    if (!growStatuses(machine, domain, statusFramesFor(domain.grantFrames))) return ENOMEM;
  } else removeStatuses(machine, domain);
  for (let frame = 0; frame < domain.grantFrames; frame++) {
    const start = domain.grantFrame(frame) * PAGE_WORDS;
    machine.memory.i32.fill(0, start, start + PAGE_WORDS);
  }
  for (const [ref, entry] of reserved.entries()) writeReserved(machine, domain, ref, version, entry);
  domain.grantVersion = version;
  return 0;
}

/** Whether somebody maps a frame of statuses through an entry of the toolstack: it cannot be freed (XSA-255). */
function pinsStatuses(heap: Int32Array, domain: DomainRecord, ref: number): boolean {
  const active = domain.activeEntry(ref);
  if (heap[active + ACTIVE_PINS] === 0) return false;
  for (let index = 0; index < domain.statusFrames; index++)
    if (domain.statusFrame(index) === heap[active + ACTIVE_FRAME]) return true;
  return false;
}

function reservedOfV1(machine: Machine, domain: DomainRecord): Reserved[] {
  return references().map((ref) => {
    const word = headerWord(domain, ref, 1);
    return [Atomics.load(machine.memory.i32, word), machine.memory.i32[word + 1]];
  });
}

/** Undefined when one of them grants what version 1 has no words for. */
function reservedOfV2(machine: Machine, domain: DomainRecord): Reserved[] | undefined {
  const { i32, u16 } = machine.memory;
  const entries: Reserved[] = [];
  for (const ref of references()) {
    const word = headerWord(domain, ref, 2);
    const header = Atomics.load(i32, word);
    const type = header & GTF_TYPE_MASK;
    if (type === GTF_TRANSITIVE || (type === GTF_PERMIT_ACCESS && i32[word + 3] !== 0)) return undefined;
    if (type !== GTF_PERMIT_ACCESS) entries.push([GTF_INVALID, 0]);
    else entries.push([header | Atomics.load(u16, statusWord(domain, ref)), i32[word + 2]]);
  }
  return entries;
}

function writeReserved(
  machine: Machine,
  domain: DomainRecord,
  ref: number,
  version: number,
  [header, frame]: Reserved,
): void {
  const { i32, u16 } = machine.memory;
  const word = headerWord(domain, ref, version);
  if (version === 1) {
    i32[word + 1] = frame;
    Atomics.store(i32, word, header);
    return;
  }
  i32[word + 2] = frame;
  Atomics.store(u16, statusWord(domain, ref), header & IN_USE);
  Atomics.store(i32, word, header & ~IN_USE);
}

function references(): number[] {
  return Array.from({ length: GRANT_RESERVED_ENTRIES }, (_, ref) => ref);
}

function lockEntries(heap: Int32Array, domain: DomainRecord): void {
  for (let ref = 0; ref < domain.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++)
    lock(heap, domain.activeEntry(ref) + ACTIVE_LOCK);
}

function unlockEntries(heap: Int32Array, domain: DomainRecord): void {
  for (let ref = 0; ref < domain.grantFrames * GRANT_ENTRIES_PER_FRAME_V1; ref++)
    unlock(heap, domain.activeEntry(ref) + ACTIVE_LOCK);
}
