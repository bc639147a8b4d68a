// Which frames of a guest were exposed in a run, how and for whom: the rows of the page map. Used by audit.ts;
// drawn by html/.

import type { Grant, Reach } from './exposure-state.ts';

/** What happened to one frame. */
export interface FrameRecord {
  readonly domain: number;
  readonly frame: number;
  /** How often it was granted. */
  readonly grants: number;
  /** The reference of the last grant, and to whom. */
  readonly ref: number;
  readonly peer: number;
  /** The most of its bytes that one grant exposed. */
  readonly exposed: number;
  readonly isWritable: boolean;
  readonly isPrivate: boolean;
  /** The devices whose needs named it; those beyond the fourth are left out. */
  readonly devices: readonly number[];
}

/** Frames that were reached without a grant. */
export interface ReachedRange {
  readonly domain: number;
  readonly mapper: number;
  readonly frame: number;
  readonly count: number;
}

type Record = { -readonly [K in keyof FrameRecord]: FrameRecord[K] } & { readonly devices: number[] };

const MAX_FRAMES = 65_536;
const MAX_RANGES = 64;
const MAX_DEVICES = 4;

/** Follows the frames of a run. */
export class FrameMap {
  readonly #domains = new Map<number, Map<number, Record>>();
  readonly ranges: ReachedRange[] = [];
  #frames = 0;
  /** Frames that are left out, each time one is granted. */
  left = 0;

  granted(grant: Grant): void {
    const { domain, ref, peer, readonly } = grant;
    const frame = this.#record(domain.id, grant.frame.number);
    if (frame === undefined) {
      this.left++;
      return;
    }
    frame.grants++;
    frame.ref = ref;
    frame.peer = peer;
    if (!readonly) frame.isWritable = true;
    if (grant.frame.privateTo !== undefined) frame.isPrivate = true;
  }

  /** The grant is over, or the run is: what is known of it is all that there will be. */
  ended({ domain, frame: { number }, start, end, lastNeed }: Grant): void {
    const frame = this.#domains.get(domain.id)?.get(number);
    if (frame === undefined) return;
    frame.exposed = Math.max(frame.exposed, end - start);
    const device = lastNeed?.device.device;
    if (device === undefined || frame.devices.includes(device) || frame.devices.length >= MAX_DEVICES) return;
    frame.devices.push(device);
  }

  reached({ owner: domain, mapper, frame, count }: Reach): void {
    if (this.ranges.length < MAX_RANGES) this.ranges.push({ domain, mapper, frame, count });
  }

  /** The frames in the order of their domains and numbers. */
  frames(): FrameRecord[] {
    return [...this.#domains.values()]
      .flatMap((frames) => [...frames.values()])
      .sort((a, b) => a.domain - b.domain || a.frame - b.frame);
  }

  #record(domain: number, number: number): Record | undefined {
    let frames = this.#domains.get(domain);
    if (frames === undefined) {
      frames = new Map();
      this.#domains.set(domain, frames);
    }
    let record = frames.get(number);
    if (record === undefined && this.#frames < MAX_FRAMES) {
      this.#frames++;
      record = {
        domain,
        frame: number,
        grants: 0,
        ref: 0,
        peer: 0,
        exposed: 0,
        isWritable: false,
        isPrivate: false,
        devices: [],
      };
      frames.set(number, record);
    }
    return record;
  }
}
