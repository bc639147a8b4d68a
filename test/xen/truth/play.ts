// Carries out a sequence of grant operations on a world and notes what can be seen of it: one line for each step,
// in which nothing depends on the numbers that a Xen gives to handles and frames. Two Xens that do the same give
// the same lines. After generate.ts, before compare.ts.

import * as op from '../../../src/abi/grant-table-op.ts';
import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_OKAY,
  grantEntryV1,
  grantEntryV2Full,
  grantEntryV2Sub,
  grantEntryV2Transitive,
  grantStatusName,
} from '../../../src/abi/grant.ts';
import { DOMID_INVALID, DOMID_SELF, XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import {
  type CopyElement,
  type CopyPlace,
  DOMAIN_IDS,
  type DomainName,
  type GrantStep,
  type MapElement,
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
import { observedRefs } from './refs.ts';
import type { World } from './world.ts';

/** What a status is before Xen sets it. */
const UNSET = 0x7777;
/** A handle that nobody has, and a frame that nobody has. */
const NO_HANDLE = 0xffff_fff0;
const NO_FRAME = 0xfff_fff0;
const MAPPED = GNTMAP_DEVICE_MAP | GNTMAP_HOST_MAP;

const IDS: Readonly<Record<DomainName, number>> = {
  ...DOMAIN_IDS,
  self: DOMID_SELF,
  own: DOMAIN_IDS.self,
  none: 102,
  io: 0x7ff1,
  invalid: DOMID_INVALID,
  last: 0xffff,
};

/** A mapping that came to be. */
interface Mapping {
  readonly handle: number;
  readonly flags: number;
  readonly busAddress: number;
  readonly place: Place;
  /** GNTMAP_ flags of what is still mapped. */
  left: number;
}

/** Plays a sequence, lets go of all mappings, and returns what was seen. */
export function play(world: World, sequence: Sequence): string[] {
  const player = new Player(world);
  const lines = sequence.map((step) => player.step(step));
  return [...lines, player.end()];
}

class Player {
  readonly #world: World;
  readonly #mappings = new Map<number, Mapping>();
  /** Of each place whether something is mapped there, and whether only to be read. */
  readonly #places: ('free' | 'writable' | 'readonly')[] = Array.from({ length: SLOTS }, () => 'free');
  /** Bus addresses in the order in which they were first seen. */
  readonly #buses = new Map<number, string>();
  #version = 1;

  constructor(world: World) {
    this.#world = world;
  }

  step(step: Step): string {
    return `${this.#do(step)} | ${this.#flags()}${changesPages(step) ? ` | ${this.#pages()}` : ''}`;
  }

  /** Lets go of what is still mapped, wherever it has come to stand. */
  end(): string {
    const lines: string[] = [];
    for (const [name, mapping] of this.#mappings) {
      const bus = mapping.left & GNTMAP_DEVICE_MAP ? 'right' : 'none';
      const places = mapping.left & GNTMAP_HOST_MAP ? this.#taken() : (['none'] as const);
      for (const place of places)
        if (mapping.left & MAPPED) lines.push(this.#unmap([{ name, place, bus }], undefined));
    }
    const version = this.#version === 2 ? this.#setVersion(1) : 'version 1';
    return `end: ${lines.join(' ')} ${version} | ${this.#flags()} | ${this.#pages()}`;
  }

  #do(step: Step): string {
    switch (step.do) {
      case 'grant':
        return this.#grant(step);
      case 'fill':
        fill(this.#page(step.page), step.with);
        return 'fill';
      case 'look':
        return this.#places[step.place] === 'free'
          ? 'look'
          : `look ${hash(this.#world.readPlace(step.place))}`;
      case 'write':
        return this.#write(step.place, step.with);
      case 'map':
        return this.#map(step.elements);
      case 'unmap':
        return this.#unmap(step.elements, undefined);
      case 'replace':
        return this.#unmap(step.elements, step.with);
      case 'copy':
        return this.#copy(step.elements);
      case 'swap':
        return this.#swap(step.pairs);
      case 'setVersion':
        return this.#setVersion(step.version);
      case 'getVersion':
        return this.#getVersion(step.domain);
      case 'querySize':
        return this.#querySize(step.domain, step.count);
      case 'setupTable':
        return this.#setupTable(step.domain, step.frames, step.count, this.#list(step.list));
      case 'statusFrames':
        return this.#statusFrames(step.domain, step.frames, step.count, this.#list(step.list));
      case 'call':
        return this.#call(step.command, step.count, step.at);
    }
  }

  #page({ of, index }: PageName): Uint8Array {
    return this.#world.page(of, typeof index === 'number' ? index : 0);
  }

  #frame({ of, index }: PageName): number {
    if (index === 'nothing' || (index === 'status' && this.#version === 1)) return NO_FRAME;
    if (index === 'status') return this.#world.statusFrame();
    return index === 'high' ? this.#world.frame(of, 0) + 2 ** 32 : this.#world.frame(of, index);
  }

  #grant(step: GrantStep): string {
    const [flags, domid] = [step.flags, IDS[step.peer]];
    const frame = this.#frame(step.page);
    const [frameLow, frameHigh] = [frame >>> 0, Math.floor(frame / 2 ** 32)];
    const version = this.#versionOf(step.in);
    const place = this.#entry(step.in, step.ref, version);
    if (place === undefined) return 'grant: no such entry';
    let entry: Uint8Array;
    if (version === 1) entry = grantEntryV1.make({ flags, domid, frame: frameLow }).bytes;
    else if (step.passes !== undefined) {
      const { from, ref: gref } = step.passes;
      entry = grantEntryV2Transitive.make({ flags, domid, trans_domid: IDS[from], gref }).bytes;
    } else if (step.part !== undefined) {
      const [page_off, length] = step.part;
      entry = grantEntryV2Sub.make({ flags, domid, page_off, length, frameLow, frameHigh }).bytes;
    } else entry = grantEntryV2Full.make({ flags, domid, frameLow, frameHigh }).bytes;
    place.set(entry);
    return 'grant';
  }

  #versionOf(role: Role): number {
    return role === 'self' ? this.#version : 1;
  }

  /** The bytes of an entry, if it is in a frame that is looked at. */
  #entry(role: Role, ref: number, version: number): Uint8Array | undefined {
    const { size } = version === 1 ? grantEntryV1 : grantEntryV2Full;
    const frame = Math.floor((ref * size) / XEN_PAGE_SIZE);
    if (frame >= TABLE_FRAMES[role]) return undefined;
    const at = (ref * size) % XEN_PAGE_SIZE;
    return this.#world.tableFrame(role, frame).subarray(at, at + size);
  }

  #write(place: number, seed: number): string {
    if (this.#places[place] !== 'writable') return 'write: not writable';
    const bytes = new Uint8Array(16);
    fill(bytes, seed);
    this.#world.writePlace(place, (seed % 255) * 16, bytes);
    return 'write';
  }

  /** An address for a mapping; never one where something is mapped already: that ends the caller, or loses a page. */
  #freePlace(place: Place, taken: Set<number>): number {
    if (typeof place !== 'number') return place === 'none' ? 0 : this.#world.nowhere;
    if (this.#places[place] !== 'free' || taken.has(place)) return this.#world.nowhere;
    taken.add(place);
    return this.#world.placeAddress(place);
  }

  #address(place: Place): number {
    if (place === 'none') return 0;
    return place === 'nowhere' ? this.#world.nowhere : this.#world.placeAddress(place);
  }

  #map(elements: readonly MapElement[]): string {
    const taken = new Set<number>();
    const addresses = elements.map(({ place }) => this.#freePlace(place, taken));
    const bytes = concatenate(
      elements.map(({ flags, ref, domain }, index) => {
        const argument = { host_addr: addresses[index], flags, ref, dom: IDS[domain], status: UNSET };
        return op.gnttabMapGrantRef.make(argument).bytes;
      }),
    );
    const answer = this.#world.call(op.GNTTABOP_MAP_GRANT_REF, bytes, elements.length);
    const done = op.gnttabMapGrantRef.over(answer.bytes);
    const words = elements.map((element, index) => {
      const { status, handle, dev_bus_addr: bus } = done.at(index * op.gnttabMapGrantRef.size);
      if (status !== GNTST_OKAY) return grantStatusName(status);
      const isTaken = [...this.#mappings.values()].some(
        (other) => other.left !== 0 && other.handle === handle,
      );
      this.#note(element, handle, bus, addresses[index]);
      return `${this.#busName(bus)}${isTaken ? ' with the handle of another mapping' : ''}`;
    });
    return `map ${answer.result}: ${words.join(' ')}`;
  }

  #note({ name, flags, place }: MapElement, handle: number, busAddress: number, address: number): void {
    const stands = typeof place === 'number' && address !== this.#world.nowhere;
    if (flags & GNTMAP_HOST_MAP && stands)
      this.#places[place] = flags & GNTMAP_READONLY ? 'readonly' : 'writable';
    this.#mappings.set(name, { handle, flags, busAddress, place, left: flags & MAPPED });
  }

  #busName(address: number): string {
    const name = this.#buses.get(address) ?? `bus${this.#buses.size}`;
    this.#buses.set(address, name);
    return name;
  }

  /** Places at which something is mapped. */
  #taken(): number[] {
    return this.#places.flatMap((state, place) => (state === 'free' ? [] : [place]));
  }

  #unmap(elements: readonly UnmapElement[], replacement: Place | undefined): string {
    const layout = replacement === undefined ? op.gnttabUnmapGrantRef : op.gnttabUnmapAndReplace;
    const next = this.#address(replacement ?? 'none');
    const bytes = concatenate(
      elements.map(({ name, place, bus }) => {
        const mapping = this.#mappings.get(name);
        const dev_bus_addr =
          bus === 'none' ? 0 : (mapping?.busAddress ?? 4096) + (bus === 'wrong' ? 4096 : 0);
        const common = {
          host_addr: this.#address(place),
          handle: mapping?.handle ?? NO_HANDLE,
          status: UNSET,
        };
        return replacement === undefined
          ? op.gnttabUnmapGrantRef.make({ ...common, dev_bus_addr }).bytes
          : op.gnttabUnmapAndReplace.make({ ...common, new_addr: next }).bytes;
      }),
    );
    const command = replacement === undefined ? op.GNTTABOP_UNMAP_GRANT_REF : op.GNTTABOP_UNMAP_AND_REPLACE;
    const answer = this.#world.call(command, bytes, elements.length);
    const done = op.gnttabUnmapGrantRef.over(answer.bytes);
    const words = elements.map((element, index) => {
      const { status } = done.at(index * layout.size);
      if (status === GNTST_OKAY) this.#forget(element, replacement !== undefined);
      return grantStatusName(status);
    });
    return `${replacement === undefined ? 'unmap' : 'replace'} ${answer.result}: ${words.join(' ')}`;
  }

  #forget({ name, place, bus }: UnmapElement, isReplace: boolean): void {
    const mapping = this.#mappings.get(name);
    if (mapping === undefined) return;
    if (typeof place === 'number' && mapping.left & GNTMAP_HOST_MAP) {
      mapping.left &= ~GNTMAP_HOST_MAP;
      this.#places[place] = 'free';
    }
    if (bus !== 'none' && !isReplace) mapping.left &= ~GNTMAP_DEVICE_MAP;
  }

  #copy(elements: readonly CopyElement[]): string {
    const bytes = concatenate(
      elements.map(({ source, dest, length }) => {
        const flags =
          (source.ref === undefined ? 0 : op.GNTCOPY_SOURCE_GREF) |
          (dest.ref === undefined ? 0 : op.GNTCOPY_DEST_GREF);
        return op.gnttabCopy.make({
          source_u: this.#end(source),
          source_domid: IDS[source.domain],
          source_offset: source.offset,
          dest_u: this.#end(dest),
          dest_domid: IDS[dest.domain],
          dest_offset: dest.offset,
          len: length,
          flags,
          status: UNSET,
        }).bytes;
      }),
    );
    const answer = this.#world.call(op.GNTTABOP_COPY, bytes, elements.length);
    const done = op.gnttabCopy.over(answer.bytes);
    return `copy ${answer.result}: ${elements
      .map((_, index) => grantStatusName(done.at(index * op.gnttabCopy.size).status))
      .join(' ')}`;
  }

  #end({ ref, page }: CopyPlace): number {
    return ref ?? (page === undefined ? 0 : this.#frame(page));
  }

  #swap(pairs: readonly (readonly [number, number])[]): string {
    const bytes = concatenate(
      pairs.map(([ref_a, ref_b]) => op.gnttabSwapGrantRef.make({ ref_a, ref_b, status: UNSET }).bytes),
    );
    const answer = this.#world.call(op.GNTTABOP_SWAP_GRANT_REF, bytes, pairs.length);
    const done = op.gnttabSwapGrantRef.over(answer.bytes);
    const words = pairs.map((_, index) =>
      grantStatusName(done.at(index * op.gnttabSwapGrantRef.size).status),
    );
    return `swap ${answer.result}: ${words.join(' ')}`;
  }

  #setVersion(version: number): string {
    const { bytes } = op.gnttabSetVersion.make({ version });
    const answer = this.#world.call(op.GNTTABOP_SET_VERSION, bytes, 1);
    this.#version = op.gnttabSetVersion.over(answer.bytes).version;
    return `set version ${answer.result}: ${this.#version}`;
  }

  #getVersion(domain: DomainName): string {
    const { bytes } = op.gnttabGetVersion.make({ dom: IDS[domain], version: UNSET });
    const answer = this.#world.call(op.GNTTABOP_GET_VERSION, bytes, 1);
    return `get version ${answer.result}: ${op.gnttabGetVersion.over(answer.bytes).version}`;
  }

  #querySize(domain: DomainName, count: number): string {
    const argument = { dom: IDS[domain], nr_frames: UNSET, max_nr_frames: UNSET, status: UNSET };
    const { bytes } = op.gnttabQuerySize.make(argument);
    const answer = this.#world.call(op.GNTTABOP_QUERY_SIZE, bytes, count);
    const { nr_frames: frames, max_nr_frames: most, status } = op.gnttabQuerySize.over(answer.bytes);
    return `query size ${answer.result}: ${grantStatusName(status)} ${frames} of ${most}`;
  }

  #list(list: 'there' | 'nowhere'): number {
    return list === 'there' ? this.#world.listAddress : this.#world.nowhere;
  }

  #setupTable(domain: DomainName, nr_frames: number, count: number, frame_list: number): string {
    const argument = { dom: IDS[domain], nr_frames, frame_list, status: UNSET };
    const answer = this.#world.call(op.GNTTABOP_SETUP_TABLE, op.gnttabSetupTable.make(argument).bytes, count);
    return `setup table ${answer.result}: ${grantStatusName(op.gnttabSetupTable.over(answer.bytes).status)}`;
  }

  #statusFrames(domain: DomainName, nr_frames: number, count: number, frame_list: number): string {
    const argument = { dom: IDS[domain], nr_frames, frame_list, status: UNSET };
    const { bytes } = op.gnttabGetStatusFrames.make(argument);
    const answer = this.#world.call(op.GNTTABOP_GET_STATUS_FRAMES, bytes, count);
    const { status } = op.gnttabGetStatusFrames.over(answer.bytes);
    return `status frames ${answer.result}: ${grantStatusName(status)}`;
  }

  #call(command: number, count: number, at: 'there' | 'nowhere'): string {
    const result =
      at === 'there'
        ? this.#world.call(command, new Uint8Array(4096), count).result
        : this.#world.callAt(command, this.#world.nowhere, count);
    return `call ${result}`;
  }

  /** Flags, and statuses, of all entries that anything is done to, save those that are 0. */
  #flags(): string {
    return ROLES.map((role) => `${role} ${this.#flagsOf(role)}`).join('; ');
  }

  #flagsOf(role: Role): string {
    const version = this.#versionOf(role);
    const statuses = version === 2 ? this.#world.statuses() : undefined;
    const words: string[] = [];
    for (const ref of observedRefs(role)) {
      const entry = this.#entry(role, ref, version);
      if (entry === undefined) continue;
      const flags = entry[0] | (entry[1] << 8);
      const status = statuses?.[ref] ?? 0;
      if (flags !== 0 || status !== 0)
        words.push(`${ref}:${flags.toString(16)}${status === 0 ? '' : `+${status.toString(16)}`}`);
    }
    return words.join(' ');
  }

  #pages(): string {
    return ROLES.map((role) =>
      Array.from({ length: PAGES }, (_, index) => hash(this.#world.page(role, index))).join(' '),
    ).join('; ');
  }
}

function changesPages(step: Step): boolean {
  return step.do === 'copy' || step.do === 'write';
}

function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Fills memory with bytes that follow from `seed`. */
function fill(bytes: Uint8Array, seed: number): void {
  let state = seed | 1;
  for (let at = 0; at < bytes.length; at++) {
    state = Math.imul(state, 0x0019_660d) + 0x3c6e_f35f;
    bytes[at] = state >>> 24;
  }
}

/** A digest of a page: 32 bits of FNV-1a over its words. */
function hash(page: Uint8Array): string {
  const words = new Uint32Array(page.buffer, page.byteOffset, page.byteLength / 4);
  let digest = 0x811c_9dc5;
  for (const word of words) digest = Math.imul(digest ^ word, 0x0100_0193);
  return (digest >>> 0).toString(16);
}
