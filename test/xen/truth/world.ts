// What play.ts needs of a Xen: the caller's hypercall, and a hand on the memory of the domains that takes no
// hypercall of the kind that is tested. embedded-world.ts and privcmd-world.ts implement it.

import type { Role } from './script.ts';

/** A Xen, with the domains of script.ts freshly made. */
export interface World {
  /** Room for lists of frame numbers that operations fill in. */
  readonly listAddress: number;
  /** An address where the caller has neither memory nor page tables. */
  readonly nowhere: number;
  /**
   * Carries out GNTTABOP_ `command` on `count` elements that lie where `bytes` are put.
   *
   * @returns what the hypercall answers, and `bytes` as Xen has left them
   */
  call(
    command: number,
    bytes: Uint8Array,
    count: number,
  ): { readonly result: number; readonly bytes: Uint8Array };
  /** The same with arguments at an address of the caller's. */
  callAt(command: number, address: number, count: number): number;
  /** The number that a domain uses for one of its pages. */
  frame(of: Role, index: number): number;
  /** The bytes of one of its pages. */
  page(of: Role, index: number): Uint8Array;
  /** The bytes of one of the first TABLE_FRAMES frames of a domain's table. */
  tableFrame(of: Role, index: number): Uint8Array;
  /** The caller's first frame of statuses while its table is of version 2: its number, and what it holds. */
  statusFrame(): number;
  statuses(): Uint16Array;
  /** The address of a place for mappings, and what can be read and written there while something is mapped. */
  placeAddress(place: number): number;
  readPlace(place: number): Uint8Array;
  writePlace(place: number, offset: number, bytes: Uint8Array): void;
  /** Lets go of everything; nothing of the world may be used any more. */
  close(): void;
}

/** Makes worlds, each as the one before was at first. */
export type MakeWorld = () => World;
