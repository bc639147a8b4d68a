// How a virtual host is made, and what a run of it comes to. Before virtual-host.ts.

import type { TotalExposure } from '../audit/exposure.ts';
import type { TraceConsumer } from '../audit/events.ts';
import type { DmaDebugOptions, DmaDebugResult } from '../dma/dma-debug-log.ts';
import type { ExposureMode } from '../dma/exposure-modes.ts';
import type { GrantPolicy } from '../dma/policy.ts';
import type { ReferenceUsage } from '../dma/references.ts';
import type { Architecture, DomainKind } from '../hosts/model/address-map.ts';
import type { Troubles } from '../machine/guest-domain.ts';
import { domainId } from '../xen/ids.ts';
import type { DeviceDecision } from './guest-thread.ts';
import type { Glimpse } from './peeping-mapper.ts';

/** The driver domain: not domain 0, which has no part in the data path. */
export const BACKEND = domainId(1);
export const GUEST = domainId(2);

/** How the guest and its toolstack want a device to reach memory. */
export interface AccessWish {
  /** Whether the toolstack gives the device with grants; default true. */
  readonly grantUsage?: boolean;
  /** The guest's policy for the device; default its policy for all. */
  readonly policy?: GrantPolicy;
}

/** A disk of the guest. */
export interface HostDisk extends AccessWish {
  /** Path of the image. */
  readonly path: string;
  readonly readOnly: boolean;
  /** The guest's name for it: "xvda" and so on. */
  readonly dev: string;
}

/** How a virtual host is made. */
export interface HostOptions {
  readonly disks: readonly HostDisk[];
  /** The entropy devices that the guest gets besides; each must deliver before the host is ready. */
  readonly entropyDevices: readonly AccessWish[];
  /** The consoles, each attached to itself; each must echo before the host is ready. */
  readonly consoles?: readonly AccessWish[];
  readonly mode: ExposureMode;
  /** Number of the first disk in the trace; the others follow. */
  readonly firstDevice: number;
  /** Of the machine, and so of both domains. */
  readonly architecture: Architecture;
  /** Of the guest; not 'pv', whose accesses to registers nobody traps. */
  readonly kind: DomainKind;
  /** Bytes of the guest's memory. */
  readonly memory: number;
  /** Limits of the guest: of its grant table, and of what it may map itself. */
  readonly maxGrantFrames: number;
  readonly maxGrantVersion?: number | undefined;
  readonly maxMaptrackFrames?: number | undefined;
  readonly queues: number;
  readonly queueSize: number;
  /** Whether, and how, the guest's drivers are watched for misuse of their mappings. */
  readonly dmaDebug?: DmaDebugOptions | undefined;
  /** The guest's policy for all devices; default 'require'. */
  readonly policy?: GrantPolicy | undefined;
  /** Id of the domain that serves all devices, as the guest's own configuration says it. */
  readonly configuredBackend?: number | undefined;
  /** Told how each device is to reach memory, and why, before it is used; devices are counted as in the trace. */
  readonly onDecision?: (decision: DeviceDecision) => void;
  /** Takes every event of the run besides the accounting. */
  readonly trace?: TraceConsumer;
}

/** What a run has come to. */
export interface HostReport {
  readonly exposure: TotalExposure;
  /** Events that the accounting did not get to see; 0 in an orderly run. */
  readonly eventsLost: number;
  readonly glimpse: Glimpse | undefined;
  /** In mode `auto`: bytes from which on whole pages were granted themselves, Infinity for never. */
  readonly directFrom: number | undefined;
  /** What the drivers did wrong, if they were watched and their guest was not destroyed. */
  readonly dmaDebug: DmaDebugResult | undefined;
  /** How the guest's devices were exposed: as asked for, or `bounce` where `copy` was not to be had. */
  readonly mode: ExposureMode;
  /** Undefined when the guest was destroyed. */
  readonly troubles: Troubles | undefined;
  /** The guest's grant table when its last device had gone; undefined when the guest was destroyed. */
  readonly references: ReferenceUsage | undefined;
}
