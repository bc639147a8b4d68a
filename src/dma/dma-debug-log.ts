// What DMA debugging has found in one guest: errors in the words of Linux's kernel/dma/debug.c, each with the
// stack of the call and of the mapping it is about. Written by dma-debug.ts, one for each device.

import { CallStacks } from './call-stacks.ts';
import { Overlaps } from './dma-debug-entries.ts';
import type { GrantingDomain } from './granting-domain.ts';

/** How much is kept and told. */
export interface DmaDebugOptions {
  /** Most mappings and allocations that are watched at a time; with more, debugging ends. Default 65536. */
  readonly maxEntries?: number;
  /** After so many reports errors are only counted (num_errors). Default 64. */
  readonly maxReports?: number;
  /** Errors of the driver or device of this name are reported, others only counted (driver_filter). */
  readonly only?: string;
}

const DEFAULT_MAX_ENTRIES = 65_536;
const DEFAULT_MAX_REPORTS = 64;

/** An error of a driver. */
export interface DmaReport {
  readonly driver: string;
  readonly device: string;
  /** What is wrong, in Linux's words. */
  readonly message: string;
  /** The call that was wrong, innermost frame first. */
  readonly calledAt: readonly string[];
  /** The call that made the mapping it is about, where there is one. */
  readonly mappedAt: readonly string[] | undefined;
}

/** What has come of it. */
export interface DmaDebugResult {
  /** Errors, whether reported or only counted. */
  readonly errors: number;
  /** Mappings and allocations that are live, and the most that were at any time. */
  readonly entries: number;
  readonly mostEntries: number;
  /** Whether there were more than are watched: what came after that was not checked. */
  readonly disabled: boolean;
  readonly reports: readonly DmaReport[];
  /** The stacks that events name (Tracer.origin), a frame a line. */
  readonly stacks: ReadonlyMap<number, string>;
}

/** Who has made an error. */
export interface DebuggedDriver {
  /** As Linux calls it: "virtio_blk". */
  readonly driver: string;
  /** Its device's name: "virtio0". */
  readonly device: string;
}

/** Errors and counters of all devices of a guest. */
export class DmaDebugLog {
  readonly guest: Pick<GrantingDomain, 'id' | 'memory' | 'tracer'>;
  readonly stacks = new CallStacks();
  readonly overlaps = new Overlaps();
  readonly #maxEntries: number;
  readonly #maxReports: number;
  readonly #only: string | undefined;
  readonly #reports: DmaReport[] = [];
  #errors = 0;
  #entries = 0;
  #mostEntries = 0;
  #disabled = false;

  constructor(guest: DmaDebugLog['guest'], options: DmaDebugOptions = {}) {
    this.guest = guest;
    this.#maxEntries = options.maxEntries ?? DEFAULT_MAX_ENTRIES;
    this.#maxReports = options.maxReports ?? DEFAULT_MAX_REPORTS;
    this.#only = options.only;
  }

  /** Whether nothing is watched any more. */
  get disabled(): boolean {
    return this.#disabled;
  }

  get result(): DmaDebugResult {
    return {
      errors: this.#errors,
      entries: this.#entries,
      mostEntries: this.#mostEntries,
      disabled: this.#disabled,
      reports: this.#reports,
      stacks: this.stacks.all,
    };
  }

  /** Makes room for one entry more. Returns false, from then on, when there is none. */
  count(): boolean {
    if (this.#entries === this.#maxEntries) {
      this.#disabled = true;
      this.#entries = 0;
      this.overlaps.clear();
      return false;
    }
    this.#entries++;
    this.#mostEntries = Math.max(this.#mostEntries, this.#entries);
    return true;
  }

  /** `count` entries are gone. */
  uncount(count: number): void {
    this.#entries -= count;
  }

  /** @param mappedAt number of the stack of the mapping that the error is about, if it is about one */
  error({ driver, device }: DebuggedDriver, message: string, calledAt: number, mappedAt?: number): void {
    this.#errors++;
    if (this.#reports.length >= this.#maxReports) return;
    if (this.#only !== undefined && this.#only !== driver && this.#only !== device) return;
    this.#reports.push({
      driver,
      device,
      message,
      calledAt: this.stacks.framesOf(calledAt),
      mappedAt: mappedAt === undefined ? undefined : this.stacks.framesOf(mappedAt),
    });
  }
}

/** The lines that a kernel would log. */
export function formatDmaDebug({ errors, disabled, reports }: Omit<DmaDebugResult, 'stacks'>): string {
  const lines = reports.flatMap(formatReport);
  if (errors > reports.length) lines.push(`DMA-API: errors not shown: ${errors - reports.length}`);
  if (disabled) lines.push('DMA-API: debugging out of memory - disabling');
  return lines.map((line) => `${line}\n`).join('');
}

function formatReport({ driver, device, message, calledAt, mappedAt }: DmaReport): string[] {
  const called = ['Call Trace:', ...calledAt.map((frame) => ` ${frame}`)];
  const mapped = mappedAt ? ['DMA-API: Mapped at:', ...mappedAt.map((frame) => ` ${frame}`)] : [];
  return [`DMA-API: ${driver} ${device}: ${message}`, ...called, ...mapped];
}
