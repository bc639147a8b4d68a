// What a guest's kernel has for sharing memory with backends, and the DMA operations that it makes of it for
// each device: as its policy and its exposure mode ask. Between guest-domain.ts and dma/.

import { DIRECT_FROM } from '../dma/auto-sharing.ts';
import { measureDirectFrom } from '../dma/calibrate.ts';
import type { DmaOperations } from '../dma/dma.ts';
import { DmaDebug } from '../dma/dma-debug.ts';
import { DmaDebugLog, type DmaDebugOptions } from '../dma/dma-debug-log.ts';
import { type ExposureMode, grantDma, possibleMode } from '../dma/exposure-modes.ts';
import type { GrantingDomain } from '../dma/granting-domain.ts';
import { Grants } from '../dma/grants.ts';
import { IdlePools } from '../dma/idle-pools.ts';
import { PlainDma } from '../dma/plain-dma.ts';
import { References } from '../dma/references.ts';
import type { DomainPorts } from '../hosts/model/xen.ts';
import type { DomainId } from '../xen/ids.ts';

/** A device that is to reach some of the guest's memory. */
export interface DmaDevice {
  /** Its driver's name, as Linux calls it. */
  readonly driver: string;
  /** Its number in the trace. */
  readonly number: number;
  readonly backend: DomainId;
  /** Whether its backend reaches only what is granted to it. */
  readonly restricted: boolean;
}

/** What a device reaches memory by. */
export interface DeviceDma {
  readonly operations: DmaOperations;
  /** The exposure mode that was asked for, or `bounce` where `copy` is not to be had. */
  readonly mode: ExposureMode;
  /** The operations once more, where they are watched. */
  readonly debug: DmaDebug | undefined;
}

/** The sharing of one guest's memory. */
export class GuestDma {
  readonly #ports: DomainPorts;
  readonly #clock: (() => number) | undefined;
  #granting: GrantingDomain | undefined;
  #debugLog: DmaDebugLog | undefined;
  #directFrom: number | undefined;

  /** @param clock see GuestDomain */
  constructor(ports: DomainPorts, clock: (() => number) | undefined) {
    this.#ports = ports;
    this.#clock = clock;
  }

  /** What the kernel has for granting, in the table's version of the moment when it is first asked for. */
  get granting(): GrantingDomain {
    if (this.#granting !== undefined) return this.#granting;
    const { id, memory, grantTable: table, tracer } = this.#ports;
    const [references, pools] = [new References(table), new IdlePools()];
    this.#granting = { id, memory, table, references, pools, tracer };
    return this.#granting;
  }

  /** Bytes from which on mode `auto` grants whole pages themselves. */
  get directFrom(): number {
    this.#directFrom ??=
      this.#clock === undefined ? DIRECT_FROM : measureDirectFrom(this.granting, this.#clock);
    return this.#directFrom;
  }

  /** Watches what drivers do with their mappings, for devices that come from now on. */
  debug(options: DmaDebugOptions): DmaDebugLog {
    this.#debugLog = new DmaDebugLog(this.#ports, options);
    return this.#debugLog;
  }

  /** Has parts of pages granted, if the table can: one of version 2, which has to be chosen before anything is granted. */
  wantParts(): void {
    if (this.#granting === undefined) this.#ports.grantTable.setVersion(2);
  }

  /** The operations of a device in an exposure mode. */
  of(device: DmaDevice, mode: ExposureMode): DeviceDma {
    const operations = device.restricted ? this.#grantDma(device, mode) : new PlainDma(this.#ports.memory);
    const { driver, number, restricted } = device;
    const watched = { driver, device: `virtio${number}`, number, restricted };
    const debug = this.#debugLog && new DmaDebug(operations, this.#debugLog, watched);
    return { operations: debug ?? operations, debug, mode: possibleMode(mode, this.#ports.grantTable) };
  }

  #grantDma({ backend, number }: DmaDevice, mode: ExposureMode): DmaOperations {
    if (mode === 'copy') this.wantParts();
    const options = mode === 'auto' ? { directFrom: this.directFrom } : {};
    return grantDma(mode, new Grants(this.granting, backend), number, options);
  }
}
