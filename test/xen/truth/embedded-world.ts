// The world of script.ts on the embedded Xen: domain 0 as a PV guest makes its hypercalls with bytes in its own
// memory, as a kernel does.

import { XEN_PAGE_SIZE } from '../../../src/abi/xen.ts';
import { GRANT_WINDOW } from '../../../src/hosts/model/address-map.ts';
import type { DomainRecord } from '../../../src/hosts/model/domain-record.ts';
import { Xen } from '../../../src/hosts/model/xen.ts';
import { assert } from '../../../src/errors.ts';
import { domainId } from '../../../src/xen/ids.ts';
import { DOMAIN_IDS, MAX_TABLE_FRAMES, type Role, ROLES, TABLE_FRAMES } from './script.ts';
import type { World } from './world.ts';
import { gnttabSetupTable, GNTTABOP_SETUP_TABLE } from '../../../src/abi/grant-table-op.ts';

const MIB = 1024 * 1024;
/** Pages of a domain; those that sequences are about begin at one of them, and the caller's arguments at another. */
const DOMAIN_PAGES = 64;
const FIRST_PAGE = 8;
const ARGUMENTS = 16 * XEN_PAGE_SIZE;
const ARGUMENTS_LENGTH = 16 * XEN_PAGE_SIZE;
const LIST = 40 * XEN_PAGE_SIZE;
/** Above every address space. */
const NOWHERE = 2 ** 34;

/** Makes a machine with the three domains. */
export function embeddedWorld(): World {
  const xen = Xen.boot(2 * MIB, 2 * MIB, false);
  for (const role of ROLES)
    xen.createDomain(DOMAIN_IDS[role], {
      kind: role === 'hvm' ? 'hvm' : 'pv',
      memory: DOMAIN_PAGES * XEN_PAGE_SIZE,
      maxGrantFrames: MAX_TABLE_FRAMES[role],
    });
  return new EmbeddedWorld(xen);
}

class EmbeddedWorld implements World {
  readonly listAddress = LIST;
  readonly nowhere = NOWHERE;
  readonly #xen: Xen;
  readonly #ports;
  readonly #records: Readonly<Record<Role, DomainRecord>>;

  constructor(xen: Xen) {
    this.#xen = xen;
    this.#ports = xen.ports(domainId(DOMAIN_IDS.self), () => false);
    const record = (role: Role) => xen.domain(DOMAIN_IDS[role]);
    this.#records = { self: record('self'), pv: record('pv'), hvm: record('hvm') };
    for (const role of ROLES) this.#grow(role);
  }

  #grow(role: Role): void {
    const argument = { dom: DOMAIN_IDS[role], nr_frames: TABLE_FRAMES[role], frame_list: LIST };
    const { bytes, result } = this.call(GNTTABOP_SETUP_TABLE, gnttabSetupTable.make(argument).bytes, 1);
    const { status } = gnttabSetupTable.over(bytes);
    assert(result === 0 && status === 0, 'a table of a new world grows', result);
  }

  call(command: number, bytes: Uint8Array, count: number): { result: number; bytes: Uint8Array } {
    assert(bytes.length <= ARGUMENTS_LENGTH, 'arguments fit into the memory for them', bytes.length);
    this.#ports.addressSpace.write(ARGUMENTS, bytes);
    const result = this.callAt(command, ARGUMENTS, count);
    return { result, bytes: this.#ports.addressSpace.read(ARGUMENTS, bytes.length) };
  }

  callAt(command: number, address: number, count: number): number {
    return this.#ports.grantTableOp(command, address, count);
  }

  frame(of: Role, index: number): number {
    const { translated, map, ramFrame } = this.#records[of];
    return (translated ? map.ram : ramFrame) + FIRST_PAGE + index;
  }

  page(of: Role, index: number): Uint8Array {
    return this.#frame(this.#records[of].ramFrame + FIRST_PAGE + index);
  }

  tableFrame(of: Role, index: number): Uint8Array {
    return this.#frame(this.#records[of].grantFrame(index));
  }

  statusFrame(): number {
    return this.#records.self.statusFrame(0);
  }

  statuses(): Uint16Array {
    return new Uint16Array(this.#frame(this.statusFrame()).slice().buffer);
  }

  placeAddress(place: number): number {
    return (GRANT_WINDOW + place) * XEN_PAGE_SIZE;
  }

  readPlace(place: number): Uint8Array {
    return this.#ports.addressSpace.read(this.placeAddress(place), XEN_PAGE_SIZE);
  }

  writePlace(place: number, offset: number, bytes: Uint8Array): void {
    this.#ports.addressSpace.write(this.placeAddress(place) + offset, bytes);
  }

  close(): void {
    // Memory only.
  }

  #frame(frame: number): Uint8Array {
    return new Uint8Array(this.#xen.state.memory, frame * XEN_PAGE_SIZE, XEN_PAGE_SIZE);
  }
}
