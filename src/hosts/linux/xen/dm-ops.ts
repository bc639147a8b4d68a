// What a device model asks of Xen for one guest (dm_op), one method for each operation. Results are 0, or negative
// errno values. After privcmd.ts; before device-model.ts and interrupt-line.ts.

import {
  HVM_IOREQSRV_BUFIOREQ_OFF,
  XEN_DMOP_create_ioreq_server,
  XEN_DMOP_destroy_ioreq_server,
  XEN_DMOP_get_ioreq_server_info,
  XEN_DMOP_IO_RANGE_MEMORY,
  XEN_DMOP_map_io_range_to_ioreq_server,
  XEN_DMOP_no_gfns,
  XEN_DMOP_nr_vcpus,
  XEN_DMOP_set_ioreq_server_state,
  XEN_DMOP_set_irq_level,
  XEN_DMOP_set_isa_irq_level,
  XEN_DMOP_unmap_io_range_from_ioreq_server,
  xenDmOpCreateIoreqServer,
  xenDmOpDestroyIoreqServer,
  xenDmOpGetIoreqServerInfo,
  xenDmOpIoreqServerRange,
  xenDmOpNrVcpus,
  xenDmOpSetIoreqServerState,
  xenDmOpSetIrqLevel,
  xenDmOpSetIsaIrqLevel,
} from '../../../abi/dm-op.ts';
import type { DomainId } from '../../../xen/ids.ts';
import type { Privcmd } from './privcmd.ts';

/** The operations on one guest. */
export class DmOps {
  readonly guest: DomainId;
  readonly #privcmd: Privcmd;
  readonly #isaIrq: ReturnType<typeof xenDmOpSetIsaIrqLevel.over>;
  readonly #irq: ReturnType<typeof xenDmOpSetIrqLevel.over>;

  constructor(privcmd: Privcmd, guest: DomainId) {
    this.guest = guest;
    this.#privcmd = privcmd;
    this.#isaIrq = xenDmOpSetIsaIrqLevel.over(privcmd.arguments);
    this.#irq = xenDmOpSetIrqLevel.over(privcmd.arguments);
  }

  /** Makes an ioreq server without a page of buffered requests. Returns its number. */
  createIoreqServer(): number {
    const fields = xenDmOpCreateIoreqServer.over(this.#cleared);
    fields.handle_bufioreq = HVM_IOREQSRV_BUFIOREQ_OFF;
    const result = this.#do(XEN_DMOP_create_ioreq_server, xenDmOpCreateIoreqServer);
    return result < 0 ? result : fields.id;
  }

  /** Returns 0 when this domain has that server. */
  findIoreqServer(id: number): number {
    const fields = xenDmOpGetIoreqServerInfo.over(this.#cleared);
    fields.id = id;
    fields.flags = XEN_DMOP_no_gfns;
    return this.#do(XEN_DMOP_get_ioreq_server_info, xenDmOpGetIoreqServerInfo);
  }

  enableIoreqServer(id: number): number {
    const fields = xenDmOpSetIoreqServerState.over(this.#cleared);
    fields.id = id;
    fields.enabled = 1;
    return this.#do(XEN_DMOP_set_ioreq_server_state, xenDmOpSetIoreqServerState);
  }

  destroyIoreqServer(id: number): number {
    xenDmOpDestroyIoreqServer.over(this.#cleared).id = id;
    return this.#do(XEN_DMOP_destroy_ioreq_server, xenDmOpDestroyIoreqServer);
  }

  /** Has the server answer for `size` bytes of the guest's address space from `base`. */
  mapRange(id: number, base: number, size: number): number {
    return this.#range(XEN_DMOP_map_io_range_to_ioreq_server, id, base, size);
  }

  unmapRange(id: number, base: number, size: number): number {
    return this.#range(XEN_DMOP_unmap_io_range_from_ioreq_server, id, base, size);
  }

  /** How many processors the guest may have. */
  vcpus(): number {
    const fields = xenDmOpNrVcpus.over(this.#cleared);
    const result = this.#do(XEN_DMOP_nr_vcpus, xenDmOpNrVcpus);
    return result < 0 ? result : fields.vcpus;
  }

  /**
   * Sets an interrupt line of the old PC. Only for a guest whose interrupt controllers Xen emulates: for a PVH guest
   * Xen 4.17 panics (interrupt-line.ts makes sure of it).
   */
  setIsaIrqLevel(irq: number, level: 0 | 1): number {
    this.#isaIrq.isa_irq = irq;
    this.#isaIrq.level = level;
    return this.#do(XEN_DMOP_set_isa_irq_level, xenDmOpSetIsaIrqLevel);
  }

  /** The same for a shared peripheral interrupt on Arm. */
  setIrqLevel(irq: number, level: 0 | 1): number {
    this.#irq.irq = irq;
    this.#irq.level = level;
    this.#irq.pad0 = 0;
    this.#irq.pad1 = 0;
    this.#irq.pad2 = 0;
    return this.#do(XEN_DMOP_set_irq_level, xenDmOpSetIrqLevel);
  }

  #range(operation: number, id: number, base: number, size: number): number {
    const fields = xenDmOpIoreqServerRange.over(this.#cleared);
    fields.id = id;
    fields.type = XEN_DMOP_IO_RANGE_MEMORY;
    fields.start = BigInt(base);
    fields.end = BigInt(base + size - 1);
    return this.#do(operation, xenDmOpIoreqServerRange);
  }

  get #cleared(): Uint8Array {
    return this.#privcmd.arguments.fill(0);
  }

  #do(operation: number, layout: Parameters<Privcmd['dmOp']>[2]): number {
    return this.#privcmd.dmOp(this.guest, operation, layout);
  }
}
