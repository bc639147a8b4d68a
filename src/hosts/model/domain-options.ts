// What a domain is made with: its kind, its size and its limits (xl.cfg(5)), and the check of them.

import { EVTCHN_FIFO_PORTS } from '../../abi/event-channel.ts';
import { GRANT_DEFAULT_MAX_FRAMES, MAPTRACK_DEFAULT_FRAMES } from '../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { addressMap, type Architecture, type DomainKind } from './address-map.ts';
import { MAX_DOMAINS } from './state.ts';

/** Processors of a domain at most. */
export const MAX_VCPUS = 8;
/** A reference has 24 bits in Xen's bookkeeping of the model, so this many frames of version 1. */
const MOST_GRANT_FRAMES = 1 << 15;
/** The window for mapped grants has a place for each handle. */
const MOST_MAPTRACK_FRAMES = 1 << 12;

/** Event channels of a guest whose configuration does not say how many (libxl). */
const DEFAULT_EVENT_CHANNELS = 1023;

/** What a domain is made with. Limits that are not given are Xen's defaults. */
export interface DomainOptions {
  /** Bytes of memory; a multiple of 4096. */
  readonly memory: number;
  /** Arm guests are always 'pvh'. Default 'pvh'. */
  readonly kind?: DomainKind;
  /** Default 'x86'. */
  readonly architecture?: Architecture;
  readonly vcpus?: number;
  readonly maxGrantFrames?: number;
  /** Of 256 handles each. */
  readonly maxMaptrackFrames?: number;
  /** 1 or 2. Default 2, and 1 on Arm, which has no version 2 (XSA-268). */
  readonly maxGrantVersion?: number;
  /** The highest event channel it may have. Default 1023; for domain 0 as many as the ABI has. */
  readonly maxEventChannels?: number;
  /** Whether it may act on other domains, as a toolstack does. Default: domain 0 may. */
  readonly privileged?: boolean;
}

/** The same with everything filled in. */
export type CheckedOptions = Required<DomainOptions>;

/** Fills in what was not given. Throws RangeError for what no domain can be made with. */
export function checkedOptions(id: number, options: DomainOptions): CheckedOptions {
  const { architecture = 'x86', kind = 'pvh' } = options;
  const checked: CheckedOptions = {
    kind,
    architecture,
    vcpus: 1,
    maxGrantFrames: GRANT_DEFAULT_MAX_FRAMES,
    maxMaptrackFrames: MAPTRACK_DEFAULT_FRAMES,
    maxGrantVersion: architecture === 'arm' ? 1 : 2,
    maxEventChannels: id === 0 ? EVTCHN_FIFO_PORTS - 1 : DEFAULT_EVENT_CHANNELS,
    privileged: id === 0,
    ...options,
  };
  require(id, `id ${id}`, id, 0, MAX_DOMAINS - 1);
  const { memory, vcpus, maxGrantFrames, maxMaptrackFrames, maxGrantVersion, maxEventChannels } = checked;
  require(id, `memory of ${memory} bytes`, memory, XEN_PAGE_SIZE, addressMap(architecture).ramBytes);
  if (memory % XEN_PAGE_SIZE !== 0)
    throw new RangeError(`domain ${id}: memory of ${memory} bytes is no multiple of ${XEN_PAGE_SIZE}`);
  require(id, `${vcpus} vcpus`, vcpus, 1, MAX_VCPUS);
  require(id, `max_grant_frames of ${maxGrantFrames}`, maxGrantFrames, 1, MOST_GRANT_FRAMES);
  require(id, `max_maptrack_frames of ${maxMaptrackFrames}`, maxMaptrackFrames, 0, MOST_MAPTRACK_FRAMES);
  require(id, `max_grant_version of ${maxGrantVersion}`, maxGrantVersion, 1, architecture === 'arm' ? 1 : 2);
  require(id, `max_event_channels of ${maxEventChannels}`, maxEventChannels, 1, EVTCHN_FIFO_PORTS - 1);
  if (architecture === 'arm' && kind !== 'pvh')
    throw new RangeError(`domain ${id}: a guest on Arm of type ${kind}: only pvh exists there`);
  return checked;
}

function require(id: number, what: string, value: number, least: number, most: number): void {
  if (!(Number.isInteger(value) && value >= least && value <= most))
    throw new RangeError(`domain ${id}: ${what}; expected ${least} to ${most}`);
}
