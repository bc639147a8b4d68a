// Makes a domain out of the machine's frames and of pages of Xen's heap: all of it, or nothing.

import { HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_PFN } from '../../abi/hvm-params.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { domainId } from '../../xen/ids.ts';
import { addressMap } from './address-map.ts';
import type { CheckedOptions } from './domain-options.ts';
import { directoryPages, DOMAIN_ALIVE, DomainRecord, writeRecord } from './domain-record.ts';
import { EVENT_PAGES, initialiseEvents } from './events/channels.ts';
import { growGrantTable } from './grants/table-size.ts';
import { MachinePage } from './ioreq/machine-page.ts';
import { P2M_RAM, Physmap } from './physmap.ts';
import type { Machine } from './state.ts';

/** What was taken for a domain, to be given back if it cannot be finished. */
class Parts {
  readonly #machine: Machine;
  readonly #undo: (() => void)[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Takes machine frames that follow each other. */
  frames(count: number): number {
    const first = this.#machine.frames.take(count);
    if (first < 0) throw usedUp(this.#machine.frames.free, 'frames of memory', count);
    this.#undo.push(() => this.#machine.frames.give(first, count));
    return first;
  }

  /** Takes pages of Xen's heap. */
  pages(count: number): number {
    const at = this.#machine.takePages(count);
    if (at === 0) throw usedUp(this.#machine.pagesFree, 'pages of Xen heap', count);
    this.#undo.push(() => this.#machine.givePages(at, count));
    return at;
  }

  /** An empty address space. */
  physmap(): number {
    const at = Physmap.create(this.#machine);
    if (at === 0) throw usedUp(this.#machine.pagesFree, 'pages of Xen heap', 1);
    this.#undo.push(() => [...new Physmap(this.#machine, at).release()]);
    return at;
  }

  giveBack(): void {
    for (const step of this.#undo.toReversed()) step();
  }
}

/**
 * Makes a domain with zeroed memory; for the holder of the domains' lock, who has seen that the id is free.
 *
 * @throws RangeError when the machine has no room for it, and nothing is left behind
 */
export function buildDomain(machine: Machine, id: number, options: CheckedOptions): void {
  const parts = new Parts(machine);
  try {
    const record = assemble(machine, parts, id, options);
    if (!growGrantTable(machine, record, 1))
      throw usedUp(machine.frames.free, 'frames of memory for the first frame of a grant table', 1);
    record.state = DOMAIN_ALIVE;
  } catch (error) {
    parts.giveBack();
    throw error;
  }
}

function assemble(machine: Machine, parts: Parts, id: number, options: CheckedOptions): DomainRecord {
  const frames = options.memory / XEN_PAGE_SIZE;
  const map = addressMap(options.architecture);
  const ramFrame = parts.frames(frames);
  const [sharedInfo, console, xenstore] = [parts.frames(1), parts.frames(1), parts.frames(1)];
  const physmap = new Physmap(machine, parts.physmap());
  const placed =
    physmap.fill(map.ram, ramFrame, frames) &&
    physmap.add(map.console, console, P2M_RAM) &&
    physmap.add(map.xenstore, xenstore, P2M_RAM);
  if (!placed) throw usedUp(machine.pagesFree, 'pages of Xen heap for an address space', 1);
  writeRecord(machine, id, options, {
    generation: machine.nextGeneration(),
    ramFrame,
    sharedInfo,
    console,
    xenstore,
    physmap: physmap.directory,
    directory: parts.pages(directoryPages(options)),
    machinePage: options.kind === 'pv' ? 0 : parts.pages(1),
  });
  const record = new DomainRecord(machine, domainId(id));
  initialiseEvents(machine, record, parts.pages(EVENT_PAGES), options.maxEventChannels);
  if (record.translated) {
    const page = new MachinePage(machine, record);
    page.setParam(HVM_PARAM_STORE_PFN, BigInt(record.storePage));
    page.setParam(HVM_PARAM_CONSOLE_PFN, BigInt(record.consolePage));
  }
  return record;
}

function usedUp(left: number, what: string, needed: number): RangeError {
  return new RangeError(`the machine has ${left} ${what} left; ${needed} are needed`);
}
