// Makes sequences of grant operations out of seeds: mostly such as a careful or a careless kernel would make, so
// that they get far, and some that no kernel makes. It knows of no Xen and no outcome. Before play.ts.
//
// What it never makes, because a Xen of another version answers otherwise or nobody can say what would be right, is
// listed in docs/embedded-xen.md with the lines of Xen that say so.

import {
  GRANT_RESERVED_ENTRIES,
  GNTMAP_APPLICATION_MAP,
  GNTMAP_CONTAINS_PTE,
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GTF_ACCEPT_TRANSFER,
  GTF_INVALID,
  GTF_PAT,
  GTF_PCD,
  GTF_PERMIT_ACCESS,
  GTF_PWT,
  GTF_READING,
  GTF_READONLY,
  GTF_SUB_PAGE,
  GTF_TRANSITIVE,
  GTF_WRITING,
} from '../../../src/abi/grant.ts';
import * as op from '../../../src/abi/grant-table-op.ts';
import { XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import { randomFrom } from '../../../src/machine/random.ts';
import { doubtfulRefs, usedRefs } from './refs.ts';
import {
  type CopyElement,
  type CopyPlace,
  type DomainName,
  type MapElement,
  MAX_TABLE_FRAMES,
  type PageName,
  PAGES,
  type Place,
  ROLES,
  type Role,
  type Sequence,
  SLOTS,
  type Step,
  TABLE_FRAMES,
  type UnmapElement,
} from './script.ts';

const NAMES: readonly DomainName[] = ['self', 'own', 'pv', 'hvm', 'none', 'io', 'invalid', 'last'];
/** How the caller names a domain that grants to it. */
const GRANTERS: Readonly<Record<Role, DomainName>> = { self: 'own', pv: 'pv', hvm: 'hvm' };
/** Steps with which a sequence begins, so that there is something to map and to copy. */
const FILLS_FIRST = 6;
const GRANTS_FIRST = 8;
/** Pins of a kind that an entry takes, and a few more. */
const MANY = 131;
/** What a granter has no business to set: bits that are Xen's, caching, bits without a meaning. */
const ODD_FLAGS = [GTF_READING, GTF_WRITING, GTF_PWT, GTF_PCD, GTF_PAT, 0x200, 0x8000];
/** The same of a mapper. */
const ODD_MAP_FLAGS = [0x20, 0x8000, 0x1_0000, 0x8000_0000];
/** Copies stay in the lower half of the page they come from, and in the upper of the one they go to. */
const HALF = XEN_PAGE_SIZE / 2;

/** An entry as it was written last. */
interface Grant {
  readonly in: Role;
  readonly ref: number;
  readonly readonly: boolean;
  /** What the caller can do with it, if nothing has come between. */
  readonly use: 'map' | 'copy' | 'nothing';
}

/**
 * A sequence of `length` steps. The same seed makes the same one.
 *
 * @param seed any 32 bits
 */
export function generate(seed: number, length: number): Sequence {
  const generator = new Generator(randomFrom(seed));
  return Array.from({ length }, (_, index) => {
    if (index < FILLS_FIRST) return generator.fill(ROLES[index % ROLES.length]);
    return index < FILLS_FIRST + GRANTS_FIRST ? generator.grant() : generator.step();
  });
}

class Generator {
  readonly #random: () => number;
  readonly #grants = new Map<string, Grant>();
  readonly #mappings: MapElement[] = [];
  /** Places where something is mapped, most likely. */
  readonly #taken = new Set<number>();
  /** The version that the caller's table most likely has. */
  #version: 1 | 2 = 1;
  #names = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  step(): Step {
    const kinds: readonly (readonly [weight: number, make: () => Step])[] = [
      [16, () => this.grant()],
      [3, () => this.fill(this.#pick(ROLES))],
      [24, () => this.#map()],
      [1, () => this.#mapMany()],
      [22, () => this.#unmap()],
      [2, () => this.#replace()],
      [4, () => ({ do: 'look', place: this.#takenPlace(), with: 0 })],
      [5, () => ({ do: 'write', place: this.#takenPlace(), with: this.#below(1000) })],
      [24, () => this.#copy()],
      [4, () => this.#swap()],
      [3, () => this.#setVersion()],
      [1, () => ({ do: 'getVersion', domain: this.#pick(NAMES) })],
      [2, () => ({ do: 'querySize', domain: this.#pick(NAMES), count: this.#one() })],
      [2, () => this.#setupTable()],
      [2, () => this.#statusFrames()],
      [3, () => this.#call()],
    ];
    let at = this.#random() * kinds.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, make] of kinds) {
      at -= weight;
      if (at < 0) return make();
    }
    return this.grant();
  }

  fill(of: Role): Step {
    return { do: 'fill', page: this.#page(of), with: this.#below(1000) };
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#below(values.length)];
  }

  /** A count for an operation that takes one element. */
  #one(): number {
    return this.#chance(0.9) ? 1 : this.#pick([0, 2, -1]);
  }

  #page(of: Role = this.#pick(ROLES)): PageName {
    return { of, index: this.#below(PAGES) };
  }

  grant(): Step {
    const into = this.#pick(ROLES);
    const version = into === 'self' ? this.#version : 1;
    const ref = this.#pick(usedRefs(into));
    const readonly = this.#chance(0.3);
    const peer = this.#chance(0.9) ? 'own' : this.#pick(NAMES);
    // A page of another domain is not the granter's to grant. Numbers of the HVM domain mean something else to others.
    const owner = into === 'hvm' || this.#chance(0.95) ? into : this.#pick(['self', 'pv'] as const);
    const page: PageName = this.#chance(0.93)
      ? this.#page(owner)
      : {
          of: into,
          index: this.#pick(into === 'self' ? (['nothing', 'high', 'status'] as const) : ['nothing', 'high']),
        };
    const common = { do: 'grant', in: into, ref, peer, page } as const;
    const right = (readonly ? GTF_READONLY : 0) | (this.#chance(0.05) ? this.#pick(ODD_FLAGS) : 0);
    const isGood = peer === 'own' && owner === into && typeof page.index === 'number';
    const note = (use: Grant['use']) =>
      this.#grants.set(`${into} ${ref}`, { in: into, ref, readonly, use: isGood ? use : 'nothing' });
    if (version === 2 && this.#chance(0.25)) {
      const part = this.#part();
      note('copy');
      return { ...common, flags: GTF_PERMIT_ACCESS | GTF_SUB_PAGE | right, part };
    }
    if (version === 2 && this.#chance(0.25)) {
      const from = this.#chance(0.85) ? this.#pick(['pv', 'hvm'] as const) : this.#pick(NAMES);
      const source = from === 'hvm' ? 'hvm' : 'pv';
      note('copy');
      return {
        ...common,
        flags: GTF_TRANSITIVE | right,
        passes: { from, ref: this.#pick(usedRefs(source)) },
      };
    }
    const other = this.#pick([
      GTF_INVALID,
      GTF_ACCEPT_TRANSFER,
      GTF_TRANSITIVE,
      GTF_PERMIT_ACCESS | GTF_SUB_PAGE,
    ]);
    const isUsual = this.#chance(0.93);
    note(isUsual ? 'map' : 'nothing');
    return { ...common, flags: (isUsual ? GTF_PERMIT_ACCESS : other) | right };
  }

  /** Part of a page; sometimes one that reaches beyond its end, or is empty. */
  #part(): readonly [number, number] {
    const first = this.#pick([0, 16, 1000, HALF, 3000, 4095]);
    return [first, this.#pick([XEN_PAGE_SIZE - first, 64, 1, 0, XEN_PAGE_SIZE])];
  }

  /** A grant that is likely to be there, and good for something. */
  #granted(isCopy: boolean): Grant {
    const all = [...this.#grants.values()];
    const good = all.filter(({ use }) => use === 'map' || (isCopy && use === 'copy'));
    const choice = this.#chance(0.85) && good.length > 0 ? good : all;
    const grant = this.#pick(choice);
    if (this.#chance(0.95)) return grant;
    return { ...grant, ref: this.#pick([...usedRefs(grant.in), ...doubtfulRefs(grant.in)]) };
  }

  #granter(role: Role): DomainName {
    return this.#chance(0.96) ? GRANTERS[role] : this.#pick(NAMES);
  }

  #place(): Place {
    return this.#chance(0.93) ? this.#below(SLOTS) : 'nowhere';
  }

  /** A place where most likely nothing is mapped. */
  #freePlace(): Place {
    const free = Array.from({ length: SLOTS }, (_, place) => place).filter(
      (place) => !this.#taken.has(place),
    );
    return free.length > 0 && this.#chance(0.9) ? this.#pick(free) : this.#place();
  }

  /** A place where most likely something is mapped. */
  #takenPlace(): number {
    return this.#taken.size > 0 && this.#chance(0.9) ? this.#pick([...this.#taken]) : this.#below(SLOTS);
  }

  #batch(): number {
    return this.#chance(0.7) ? 1 : 1 + this.#below(this.#chance(0.1) ? 40 : 6);
  }

  #map(): Step {
    return { do: 'map', elements: Array.from({ length: this.#batch() }, () => this.#mapElement()) };
  }

  #mapElement(): MapElement {
    const grant = this.#granted(false);
    const readonly = grant.readonly ? this.#chance(0.9) : this.#chance(0.3);
    let flags = readonly ? GNTMAP_READONLY : 0;
    if (this.#chance(0.97)) flags |= this.#pick([GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_HOST_MAP, 3]);
    if (this.#chance(0.04)) flags |= GNTMAP_APPLICATION_MAP;
    if (this.#chance(0.03)) flags = (flags | this.#pick(ODD_MAP_FLAGS)) >>> 0;
    const isEntry = this.#chance(0.02);
    if (isEntry) flags |= GNTMAP_CONTAINS_PTE;
    // The address of an entry of a page table is one that no table stands at.
    const place = isEntry ? 'nowhere' : this.#freePlace();
    if (typeof place === 'number' && flags & GNTMAP_HOST_MAP) this.#taken.add(place);
    const domain = this.#granter(grant.in);
    return this.#remember({ name: this.#names++, flags, ref: grant.ref, domain, place });
  }

  #remember(element: MapElement): MapElement {
    this.#mappings.push(element);
    return element;
  }

  /** As many mappings of one entry as it takes pins, and more. */
  #mapMany(): Step {
    const grant = this.#granted(false);
    const flags = GNTMAP_DEVICE_MAP | (this.#chance(0.6) ? GNTMAP_READONLY : 0);
    const domain = GRANTERS[grant.in];
    const make = () => this.#remember({ name: this.#names++, flags, ref: grant.ref, domain, place: 'none' });
    return { do: 'map', elements: Array.from({ length: MANY }, make) };
  }

  #unmap(): Step {
    if (this.#chance(0.04) && this.#mappings.length > 0)
      return { do: 'unmap', elements: this.#mappings.slice(-140).map((mapping) => this.#whole(mapping)) };
    return { do: 'unmap', elements: Array.from({ length: this.#batch() }, () => this.#unmapElement()) };
  }

  #unmapElement(): UnmapElement {
    const mapping = this.#mapping();
    if (mapping === undefined || this.#chance(0.05))
      return { name: this.#names++, place: this.#place(), bus: this.#pick(['none', 'right']) };
    if (this.#chance(0.75)) return this.#whole(mapping);
    const place = this.#pick([mapping.place, 'none', this.#place()] as const);
    return { name: mapping.name, place, bus: this.#pick(['none', 'right', 'right', 'wrong']) };
  }

  /** Unmaps all that was mapped. */
  #whole({ name, flags, place }: MapElement): UnmapElement {
    const isHost = (flags & GNTMAP_HOST_MAP) !== 0;
    if (isHost && typeof place === 'number') this.#taken.delete(place);
    return { name, place: isHost ? place : 'none', bus: flags & GNTMAP_DEVICE_MAP ? 'right' : 'none' };
  }

  /** A mapping that is likely to be there. */
  #mapping(): MapElement | undefined {
    if (this.#mappings.length === 0) return undefined;
    return this.#pick(this.#chance(0.85) ? this.#mappings.slice(-8) : this.#mappings.slice(-100));
  }

  #replace(): Step {
    return {
      do: 'replace',
      elements: [this.#unmapElement()],
      with: this.#pick(['none', 'nowhere'] as const),
    };
  }

  #copy(): Step {
    return { do: 'copy', elements: Array.from({ length: this.#batch() }, () => this.#copyElement()) };
  }

  #copyElement(): CopyElement {
    const length = this.#pick([1, 4, 16, 64, 100, 1000, HALF]);
    const source = { ...this.#copyPlace(), offset: this.#below(HALF - length + 1) };
    const dest = { ...this.#copyPlace(), offset: HALF + this.#below(HALF - length + 1) };
    const beyond = this.#random();
    if (beyond < 0.03) return { source, dest: { ...dest, offset: XEN_PAGE_SIZE - length + 1 }, length };
    if (beyond < 0.06) return { source: { ...source, offset: 4090 }, dest, length: 65_535 };
    if (beyond < 0.08) return { source, dest: { ...dest, offset: 65_535 }, length };
    return { source, dest, length };
  }

  #copyPlace(): CopyPlace {
    if (this.#chance(0.3)) {
      const page: PageName = this.#chance(0.93)
        ? this.#page('self')
        : this.#pick([this.#page('pv'), { of: 'self', index: 'nothing' }]);
      return { domain: this.#chance(0.95) ? 'self' : this.#pick(NAMES), page, offset: 0 };
    }
    const grant = this.#granted(true);
    return { domain: this.#granter(grant.in), ref: grant.ref, offset: 0 };
  }

  #swap(): Step {
    const ref = () => this.#pick(this.#chance(0.9) ? usedRefs('self') : doubtfulRefs('self'));
    return { do: 'swap', pairs: Array.from({ length: this.#batch() }, () => [ref(), ref()] as const) };
  }

  #setVersion(): Step {
    const version = this.#chance(0.9) ? this.#pick([1, 2, 2] as const) : this.#pick([0, 3, 0xffff_ffff]);
    if (version === 1 || version === 2) this.#version = version;
    for (const [key, grant] of this.#grants)
      if (grant.in === 'self' && grant.ref >= GRANT_RESERVED_ENTRIES) this.#grants.delete(key);
    if (this.#grants.size === 0) this.grant();
    return { do: 'setVersion', version };
  }

  #setupTable(): Step {
    const domain = this.#pick(NAMES);
    const role = domain === 'pv' || domain === 'hvm' ? domain : 'self';
    const most = MAX_TABLE_FRAMES[role];
    // The caller's table stays as long as it was: its kernel is not to notice.
    const more = role === 'self' ? [TABLE_FRAMES.self] : [TABLE_FRAMES[role], most];
    const frames = this.#pick([0, 1, ...more, most + 1, 0xffff_ffff]);
    return { do: 'setupTable', domain, frames, count: this.#one(), list: this.#where() };
  }

  #statusFrames(): Step {
    const frames = this.#pick([0, 1, 2, 3, 0xffff_ffff]);
    return { do: 'statusFrames', domain: this.#pick(NAMES), frames, count: this.#one(), list: this.#where() };
  }

  #where(): 'there' | 'nowhere' {
    return this.#chance(0.85) ? 'there' : 'nowhere';
  }

  #call(): Step {
    const known = [
      op.GNTTABOP_MAP_GRANT_REF,
      op.GNTTABOP_UNMAP_GRANT_REF,
      op.GNTTABOP_SETUP_TABLE,
      op.GNTTABOP_COPY,
      op.GNTTABOP_QUERY_SIZE,
      op.GNTTABOP_UNMAP_AND_REPLACE,
      op.GNTTABOP_SET_VERSION,
      op.GNTTABOP_GET_STATUS_FRAMES,
      op.GNTTABOP_GET_VERSION,
      op.GNTTABOP_SWAP_GRANT_REF,
    ];
    const command = this.#chance(0.7)
      ? this.#pick(known)
      : this.#pick([op.GNTTABOP_DUMP_TABLE, 13, 99, 4095, 0x1001]);
    return { do: 'call', command, count: this.#pick([0, 1, 2, 33, -1, -2147483648]), at: this.#where() };
  }
}
