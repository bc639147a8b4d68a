// The language in which grant operations are written down, so that they mean the same on the embedded Xen and on
// the real one: domains, pages, mappings and places by name, never by the number that they happen to have.
// Written by generate.ts, carried out by play.ts.

/** The domains of a world. `self` is the caller: domain 0, a PV guest. The others run nothing and grant to it. */
export type Role = 'self' | 'pv' | 'hvm';
export const ROLES: readonly Role[] = ['self', 'pv', 'hvm'];

/** Ids of the domains, the same on both sides. */
export const DOMAIN_IDS = { self: 0, pv: 100, hvm: 101 } as const;

/** How an argument names a domain: by one of the ids above, or by one that stands for something else or nothing. */
export type DomainName = 'self' | 'own' | 'pv' | 'hvm' | 'none' | 'io' | 'invalid' | 'last';

/** Pages of each domain that grants and copies are about. */
export const PAGES = 4;
/** Places at which the caller maps pages. */
export const SLOTS = 6;
/** Frames that each table has at the beginning, and may have at most. */
export const TABLE_FRAMES = { self: 8, pv: 2, hvm: 2 } as const;
export const MAX_TABLE_FRAMES = { self: 64, pv: 4, hvm: 4 } as const;

/**
 * A page of a domain, by index; or a frame number that nobody has, or one of more than 32 bits, or the caller's first
 * frame of statuses.
 */
export interface PageName {
  readonly of: Role;
  readonly index: number | 'nothing' | 'high' | 'status';
}

/** Writes an entry into a domain's table, in the layout of the version that the table has. */
export interface GrantStep {
  readonly do: 'grant';
  readonly in: Role;
  readonly ref: number;
  readonly flags: number;
  readonly peer: DomainName;
  readonly page: PageName;
  /** First byte and length of the part that is granted. Only version 2 has room for it. */
  readonly part?: readonly [first: number, length: number];
  /** What is passed on, in place of a page. Only version 2 has room for it. */
  readonly passes?: { readonly from: DomainName; readonly ref: number };
}

/** Fills a page with bytes that follow from a number. */
interface FillStep {
  readonly do: 'fill';
  readonly page: PageName;
  readonly with: number;
}

/** A place of the caller's address space, one where it has not even page tables, or none. */
export type Place = number | 'nowhere' | 'none';

export interface MapElement {
  /** By which later elements name the mapping, whether or not it comes to be. */
  readonly name: number;
  readonly flags: number;
  readonly ref: number;
  readonly domain: DomainName;
  readonly place: Place;
}

export interface UnmapElement {
  /** A mapping; one that never came to be has a handle that nobody has. */
  readonly name: number;
  readonly place: Place;
  readonly bus: 'none' | 'right' | 'wrong';
}

/** One end of a copy: a reference of a domain, or a page of the caller's by its frame number. */
export interface CopyPlace {
  readonly domain: DomainName;
  readonly ref?: number;
  readonly page?: PageName;
  readonly offset: number;
}

export interface CopyElement {
  readonly source: CopyPlace;
  readonly dest: CopyPlace;
  readonly length: number;
}

/** Looks at, or writes to, a page through the place at which it is mapped. */
interface AccessStep {
  readonly do: 'look' | 'write';
  readonly place: number;
  readonly with: number;
}

export type Step =
  | GrantStep
  | FillStep
  | AccessStep
  | { readonly do: 'map'; readonly elements: readonly MapElement[] }
  | { readonly do: 'unmap'; readonly elements: readonly UnmapElement[] }
  | { readonly do: 'replace'; readonly elements: readonly UnmapElement[]; readonly with: 'none' | 'nowhere' }
  | { readonly do: 'copy'; readonly elements: readonly CopyElement[] }
  | { readonly do: 'swap'; readonly pairs: readonly (readonly [a: number, b: number])[] }
  | { readonly do: 'setVersion'; readonly version: number }
  | { readonly do: 'getVersion'; readonly domain: DomainName }
  | { readonly do: 'querySize'; readonly domain: DomainName; readonly count: number }
  | {
      readonly do: 'setupTable' | 'statusFrames';
      readonly domain: DomainName;
      readonly frames: number;
      readonly count: number;
      readonly list: 'there' | 'nowhere';
    }
  /** A call with nothing but zeroes for arguments, or with none where they are said to be. */
  | {
      readonly do: 'call';
      readonly command: number;
      readonly count: number;
      readonly at: 'there' | 'nowhere';
    };

/** What is played in one go on a world that nothing was done to before. */
export type Sequence = readonly Step[];

/** Operations in a step, as they are counted: each element of a batch is one. */
export function operationsIn(step: Step): number {
  if (step.do === 'swap') return step.pairs.length;
  return 'elements' in step ? step.elements.length : 1;
}
