// The domains of the embedded Xen: made, found by id, paused, ended for a crash. Taking one apart is in
// teardown.ts. Before domain-record.ts.

import { DOMID_SELF } from '../../abi/xen.ts';
import { assert } from '../../errors.ts';
import { domainId } from '../../xen/ids.ts';
import { buildDomain } from './domain-builder.ts';
import { checkedOptions, type DomainOptions } from './domain-options.ts';
import { DOMAIN_ENDING, DOMAIN_NONE, DomainRecord } from './domain-record.ts';
import { lock, unlock } from './lock.ts';
import { type Machine, MAX_DOMAINS } from './state.ts';

/** SHUTDOWN_ codes of a domain (public/sched.h). */
export const SHUTDOWN_SUSPEND = 2;
export const SHUTDOWN_CRASH = 3;

const NOT_SHUT_DOWN = -1;

/** All domains of a machine, as one thread sees them. */
export class Domains {
  /** Called when a domain has ended itself, or has gone. */
  onChange: () => void = () => undefined;
  readonly #machine: Machine;
  readonly #records: (DomainRecord | undefined)[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The record of `id`, alive or going; undefined when there is no such domain. */
  find(id: number): DomainRecord | undefined {
    const known = this.#records[id];
    if (known?.current) return known;
    if (!Number.isInteger(id) || id < 0 || id >= MAX_DOMAINS) return undefined;
    const state = Atomics.load(this.#machine.heap, this.#machine.domainRecord(id));
    this.#records[id] =
      state === DOMAIN_NONE || state === DOMAIN_ENDING
        ? undefined
        : new DomainRecord(this.#machine, domainId(id));
    return this.#records[id];
  }

  /** The same where DOMID_SELF means the caller. */
  findFor(caller: DomainRecord, id: number): DomainRecord | undefined {
    return id === DOMID_SELF ? caller : this.find(id);
  }

  /**
   * Keeps the tables of a domain where they are until `leave`, which has to come soon: nothing else holds them for
   * whoever has not pinned a page yet. Returns false when the domain has ended meanwhile.
   */
  enter(record: DomainRecord): boolean {
    const { heap } = this.#machine;
    // Counted first: who ends a domain hides it first, and looks at the count after that.
    Atomics.add(heap, record.usersWord, 1);
    if (record.current) return true;
    this.leave(record);
    return false;
  }

  leave(record: DomainRecord): void {
    Atomics.sub(this.#machine.heap, record.usersWord, 1);
  }

  /** The domain to which a machine frame belongs. */
  ownerOf(frame: number): DomainRecord | undefined {
    for (let id = 0; id < MAX_DOMAINS; id++) {
      const domain = this.find(id);
      if (domain?.ownsMachineFrame(frame)) return domain;
    }
    return undefined;
  }

  /**
   * Creates a domain with zeroed memory.
   *
   * @throws RangeError when the id is taken or impossible, or the machine has no room for it
   */
  create(id: number, options: DomainOptions): DomainRecord {
    const checked = checkedOptions(id, options);
    const { heap, lockWord } = this.#machine;
    lock(heap, lockWord);
    try {
      if (heap[this.#machine.domainRecord(id)] !== DOMAIN_NONE)
        throw new RangeError(`domain ${id} exists already`);
      buildDomain(this.#machine, id, checked);
    } finally {
      unlock(heap, lockWord);
    }
    const record = this.find(id);
    assert(record !== undefined, 'a domain that was built is found');
    return record;
  }

  /** Keeps a domain from running until as many calls of `unpause`. */
  pause(record: DomainRecord): void {
    const { heap } = this.#machine;
    Atomics.add(heap, record.pausedWord, 1);
    // A thread that sleeps wakes up, sees it, and stops.
    Atomics.add(heap, record.wakeWord, 1);
    Atomics.notify(heap, record.wakeWord);
  }

  unpause(record: DomainRecord): void {
    const { heap } = this.#machine;
    assert(record.pauseCount > 0, 'a domain is unpaused as often as it was paused', record.pauseCount);
    Atomics.sub(heap, record.pausedWord, 1);
    Atomics.notify(heap, record.pausedWord);
  }

  /** Ends a domain that did what no kernel may do (domain_crash). It stays, stopped, until it is destroyed. */
  crash(record: DomainRecord): void {
    this.shutDown(record, SHUTDOWN_CRASH);
  }

  /** Stops a domain for good, or until `resume` (SCHEDOP_shutdown). The first code is the one that counts. */
  shutDown(record: DomainRecord, code: number): void {
    if (record.shutdownCode >= 0) return;
    record.shutdownCode = code;
    this.pause(record);
    this.onChange();
  }

  /** Lets a suspended domain go on where it is, with all that it had: its suspending was called off. */
  resume(record: DomainRecord): void {
    assert(record.shutdownCode === SHUTDOWN_SUSPEND, 'a suspended domain is resumed', record.shutdownCode);
    record.shutdownCode = NOT_SHUT_DOWN;
    this.unpause(record);
  }
}
