// Memory as a domain's processor sees it: guest-physical addresses through the domain's own table, so that
// it reaches its own memory and what is mapped into it, byte for byte, and nothing else.

import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { DomainRecord } from './domain-record.ts';
import { P2M_GRANT_READONLY, P2M_NONE, p2mFrame, p2mType } from './physmap.ts';
import type { Machine } from './state.ts';

/** An access that the address space does not permit; on a real machine the processor's page fault. */
export class PageFault extends Error {
  readonly address: number;

  constructor(domain: number, address: number, access: 'read' | 'write') {
    super(`domain ${domain}: page fault, ${access} at 0x${address.toString(16)}`);
    this.name = 'PageFault';
    this.address = address;
  }
}

export class AddressSpace {
  readonly #machine: Machine;
  readonly #domain: DomainRecord;

  constructor(machine: Machine, domain: DomainRecord) {
    this.#machine = machine;
    this.#domain = domain;
  }

  /** Copies `length` bytes out. Throws PageFault, and nothing is returned, if any of them is not there. */
  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#pieces(address, length, 'read', (machineOffset, at, size) => {
      bytes.set(this.#machine.memory.u8.subarray(machineOffset, machineOffset + size), at);
    });
    return bytes;
  }

  /** Copies bytes in. Throws PageFault where the domain may not write; bytes before that have been written. */
  write(address: number, bytes: Uint8Array): void {
    this.#pieces(address, bytes.length, 'write', (machineOffset, at, size) => {
      this.#machine.memory.u8.set(bytes.subarray(at, at + size), machineOffset);
    });
  }

  #pieces(
    address: number,
    length: number,
    access: 'read' | 'write',
    each: (machineOffset: number, at: number, size: number) => void,
  ): void {
    for (let at = 0; at < length; ) {
      const gfn = Math.floor((address + at) / XEN_PAGE_SIZE);
      const entry = this.#domain.physmap.get(gfn);
      const type = p2mType(entry);
      if (type === P2M_NONE || (access === 'write' && type === P2M_GRANT_READONLY))
        throw new PageFault(this.#domain.id, address + at, access);
      const inPage = (address + at) % XEN_PAGE_SIZE;
      const size = Math.min(length - at, XEN_PAGE_SIZE - inPage);
      each(p2mFrame(entry) * XEN_PAGE_SIZE + inPage, at, size);
      at += size;
    }
  }
}
