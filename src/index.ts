// The package's public entry: what a program needs to build a machine, devices for it, and instruments.

export { DirectTracer } from './audit/event-tracer.ts';
export type { TraceConsumer, TraceEvent } from './audit/events.ts';
export { Exposure, type TotalExposure } from './audit/exposure.ts';
export {
  type Decision,
  decideAccess,
  type Finding,
  type Findings,
  GRANT_POLICIES,
  type GrantPolicy,
  type GuestFacts,
} from './dma/policy.ts';
export { BlkDevice, type BlkOptions } from './devices/blk.ts';
export { ConsoleDevice, type ConsolePortOptions } from './devices/console.ts';
export type { ConsoleEndpoint, ConsoleLine } from './devices/console-endpoint.ts';
export { EchoEndpoint } from './devices/echo-endpoint.ts';
export { RngDevice } from './devices/rng.ts';
export type { ReferenceUsage } from './dma/references.ts';
export type { BlkDriver } from './drivers/blk.ts';
export type { ConsoleDriver } from './drivers/console.ts';
export type { GuestConsolePort } from './drivers/console-port.ts';
export { DiskError, type GuestBuffer, type GuestDisk } from './drivers/disk.ts';
export type { RngDriver } from './drivers/rng.ts';
export { AssertionError, ProtocolViolation } from './errors.ts';
export { type Bounds, type Exploration, exploreAll, exploreRandom, replay } from './explore/explore.ts';
export { explain, type Failure, type Scenario } from './explore/scenario.ts';
export { shrink, type Shrunk } from './explore/shrink.ts';
export { EXPOSURE_MODES, type ExposureMode } from './dma/exposure-modes.ts';
export {
  type DmaDebugOptions,
  type DmaDebugResult,
  type DmaReport,
  formatDmaDebug,
} from './dma/dma-debug-log.ts';
export { DomainImageError } from './hosts/model/domain-image.ts';
export type { DomainOptions } from './hosts/model/domain-options.ts';
export { type DomainPorts, Xen } from './hosts/model/xen.ts';
export type { BackendDomain, MemoryAccess, ServedDevice } from './machine/backend-domain.ts';
export type { GuestDomain } from './machine/guest-domain.ts';
export { Machine, type MachineOptions } from './machine/machine.ts';
export type { Choose } from './machine/schedule.ts';
export { type NbdAddress, parseNbdAddress } from './nbd/address.ts';
export type { NbdExport } from './nbd/export.ts';
export { NbdServer, type NbdServerOptions } from './nbd/server.ts';
export { readDomainFile, writeDomainFile } from './parallel/domain-file.ts';
export type { BlockStore, StoreResult } from './storage/block-store.ts';
export { MemoryStore } from './storage/memory-store.ts';
export { RawFile } from './storage/raw-file.ts';
export { mmioFinding, pciFinding } from './toolstack/device-tree/device-finding.ts';
export { pciCapabilityFinding } from './toolstack/pci-finding.ts';
export { storeFinding } from './toolstack/store-finding.ts';
export { noTrace, type Tracer } from './trace.ts';
export type { VirtioDevice } from './virtio/device.ts';
export { DeviceRefused } from './virtio/negotiate.ts';
