// What a call of `grantio run` asks for, from its options and its xl.cfg file, checked before anything is
// started. After run.ts (the options), before run-copy.ts and run-nbd.ts.

import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { GRANT_DEFAULT_MAX_FRAMES } from '../abi/grant.ts';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG } from '../abi/virtio.ts';
import type { TracedDevice } from '../audit/trace-file.ts';
import { checkSocketPath } from '../hosts/linux/unix-socket.ts';
import type { Architecture } from '../hosts/model/address-map.ts';
import type { DmaDebugOptions } from '../dma/dma-debug-log.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../dma/exposure-modes.ts';
import type { GrantPolicy } from '../dma/policy.ts';
import { parseNbdAddress } from '../nbd/address.ts';
import type { AccessWish, HostDisk, HostOptions } from '../parallel/host-options.ts';
import { RawFile } from '../storage/raw-file.ts';
import type { DiskSpec } from '../toolstack/disk-spec.ts';
import { formatFinding, type Place } from '../toolstack/finding.ts';
import type { GuestConfig } from '../toolstack/guest-config.ts';
import type { VirtioSpec } from '../toolstack/virtio-spec.ts';
import { readXlConfig } from '../toolstack/xl-cfg.ts';
import { UsageError } from './usage.ts';

const MIB = 2 ** 20;
export const DEFAULT_MEMORY = 64 * MIB;
/** Bytes of memory that a guest can have here. */
export const MIN_MEMORY = 16 * MIB;
export const MAX_MEMORY = 1024 * MIB;

/** The options as commander hands them over. */
export interface RunOptions {
  readonly disk: readonly string[];
  readonly backend?: string;
  readonly reconnect?: number;
  readonly mode?: ExposureMode;
  readonly arch?: Architecture;
  readonly grants?: GrantPolicy;
  readonly backendId?: number;
  readonly explain?: boolean;
  readonly queues: number;
  readonly queueSize: number;
  readonly memory?: number;
  readonly nbd?: string;
  readonly control?: string;
  readonly run?: string;
  readonly json?: boolean;
  readonly trace?: string;
  readonly dmaDebug?: boolean;
  readonly dmaDebugDriver?: string;
}

/** A call that can be carried out. */
export interface RunPlan {
  readonly name: string;
  readonly architecture: Architecture;
  readonly kind: HostOptions['kind'];
  readonly disks: readonly HostDisk[];
  readonly entropyDevices: readonly AccessWish[];
  readonly consoles: readonly AccessWish[];
  /** The guest's policy for devices without one of their own. */
  readonly policy: GrantPolicy;
  readonly configuredBackend: number | undefined;
  readonly modes: readonly ExposureMode[];
  /** Whether no device uses grants: the modes do not differ then, and there is one only. */
  readonly withoutGrants: boolean;
  readonly memory: number;
  readonly maxGrantFrames: number;
  readonly maxGrantVersion: number | undefined;
  readonly maxMaptrackFrames: number | undefined;
  readonly queues: number;
  readonly queueSize: number;
  readonly dmaDebug: DmaDebugOptions | undefined;
}

/** The guest's devices in the order of their numbers in the trace. */
export function devicesOf({
  disks,
  entropyDevices,
  consoles,
}: RunPlan): Pick<TracedDevice, 'name' | 'type'>[] {
  const sources = entropyDevices.map((_, index) => ({ name: `entropy${index}`, type: VIRTIO_ID_RNG }));
  const terminals = consoles.map((_, index) => ({ name: `console${index}`, type: VIRTIO_ID_CONSOLE }));
  return [...disks.map(({ dev }) => ({ name: dev, type: VIRTIO_ID_BLOCK })), ...sources, ...terminals];
}

/** What reports and traces call a run in `mode`. */
export function modeLabel({ withoutGrants }: Pick<RunPlan, 'withoutGrants'>, mode: ExposureMode): string {
  return withoutGrants ? 'plain' : mode;
}

/**
 * Works out what to do.
 *
 * @param configFile path of an xl.cfg file, if one was given
 * @param warn told of everything in that file that is not an error
 * @throws UsageError when the call is wrong, ImageError when an image cannot be used; nothing was changed
 */
export function planRun(
  configFile: string | undefined,
  options: RunOptions,
  warn: (text: string) => void,
): RunPlan {
  const config = configFile === undefined ? undefined : readConfig(configFile, warn);
  const specs = config?.disks ?? [];
  const { grants } = options;
  const disks = [
    ...specs.map((spec) => diskOfSpec(spec, configFile!, grants)),
    ...options.disk.map((text) => diskOfOption(text, grants)),
  ];
  const named = disks.map((disk, index) => ({ ...disk, dev: disk.dev || nextName(disks, index) }));
  if (options.nbd !== undefined) checkAddress(options.nbd);
  if (options.control !== undefined) checkControl(options.control);
  // Opened and closed again: whatever is wrong with an image is said before anything is started.
  for (const { path, readOnly } of named) new RawFile(path, readOnly).close();
  if (options.trace !== undefined) {
    const inputs = named.map(({ path }) => path);
    checkTrace(options.trace, configFile === undefined ? inputs : [...inputs, configFile]);
  }
  const machine = machineOf(config, options.arch, configFile);
  if (config?.maxGrantVersion === 2 && machine.architecture === 'arm')
    throw new UsageError(
      `${configFile}: max_grant_version=2: Xen on Arm has version 1 only (XSA-268); leave it out, or use --arch x86`,
    );
  const others = config?.virtio.map((spec) => otherOfSpec(spec, configFile!, grants)) ?? [];
  const devices = [...named, ...others];
  // Without a disk there will be one for demonstration, given as --grants says.
  const withoutGrants =
    grants === 'forbid' || (devices.length > 0 && devices.every(({ grantUsage }) => grantUsage === false));
  return {
    name: config?.name ?? 'guest',
    ...machine,
    disks: named,
    entropyDevices: others.filter(({ virtioId }) => virtioId === VIRTIO_ID_RNG),
    consoles: others.filter(({ virtioId }) => virtioId === VIRTIO_ID_CONSOLE),
    policy: grants ?? 'require',
    configuredBackend: options.backendId,
    modes: withoutGrants ? modesWithoutGrants(options.mode) : modesFor(specs, options.mode, configFile),
    withoutGrants,
    memory: options.memory ?? (config ? memoryOf(config, configFile!) : DEFAULT_MEMORY),
    maxGrantFrames: config?.maxGrantFrames ?? GRANT_DEFAULT_MAX_FRAMES,
    maxGrantVersion: config?.maxGrantVersion,
    maxMaptrackFrames: config?.maxMaptrackFrames,
    queues: options.queues,
    queueSize: options.queueSize,
    dmaDebug: dmaDebugOf(options),
  };
}

/** A driver's name alone asks for debugging too. */
function dmaDebugOf({ dmaDebug, dmaDebugDriver }: RunOptions): DmaDebugOptions | undefined {
  if (dmaDebugDriver !== undefined) return { only: dmaDebugDriver };
  return dmaDebug ? {} : undefined;
}

/** Throws UsageError for an address at which NBD cannot be served. */
export function checkAddress(text: string): void {
  try {
    parseNbdAddress(text);
  } catch (error) {
    throw new UsageError(`--nbd ${text}: ${(error as Error).message}`);
  }
}

function checkControl(path: string): void {
  try {
    checkSocketPath(path);
  } catch (error) {
    throw new UsageError(`--control ${path}: ${(error as Error).message}`);
  }
}

/** The trace file is emptied: it must be none of the files that are read. */
function checkTrace(path: string, inputs: readonly string[]): void {
  const trace = statSync(path, { throwIfNoEntry: false });
  if (trace === undefined) return;
  for (const input of inputs) {
    const { dev, ino } = statSync(input);
    if (dev === trace.dev && ino === trace.ino)
      throw new UsageError(`--trace ${path}: would overwrite ${input}; name another file`);
  }
}

function readConfig(path: string, warn: (text: string) => void): GuestConfig {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`guest configuration ${path}: cannot be read: ${(error as Error).message}`);
  }
  const { config, findings } = readXlConfig(text, path);
  for (const finding of findings) warn(formatFinding(finding));
  if (config === undefined)
    throw new UsageError(`guest configuration ${path}: has errors, see above; nothing was started`);
  return config;
}

function fault(file: string, place: Place, message: string): UsageError {
  return new UsageError(`${file}:${place.line}:${place.column}: ${message}`);
}

/**
 * Kind and architecture. Where a configuration says neither, they are those to which libxl gives virtio devices;
 * without a configuration they are those on which every exposure mode is to be had.
 */
function machineOf(
  config: GuestConfig | undefined,
  asked: Architecture | undefined,
  file: string | undefined,
): Pick<RunPlan, 'kind' | 'architecture'> {
  const kind = config?.type ?? 'pvh';
  const { settings } = config ?? {};
  const place = settings?.get('type') ?? settings?.get('builder');
  if (kind === 'pv')
    throw fault(
      file!,
      place!.value,
      'a guest of type "pv" cannot have virtio-mmio devices: Xen passes accesses to registers on to a backend for guests of type "pvh" and "hvm" only; write type = "pvh"',
    );
  if (kind === 'hvm' && asked === 'arm')
    throw fault(
      file!,
      place!.value,
      'a guest of type "hvm" exists on x86 only; write type = "pvh" or leave out --arch arm',
    );
  return { kind, architecture: asked ?? (config === undefined || kind === 'hvm' ? 'x86' : 'arm') };
}

function memoryOf(config: GuestConfig, file: string): number {
  if (config.memory === undefined) return DEFAULT_MEMORY;
  const bytes = config.memory * MIB;
  if (bytes >= MIN_MEMORY && bytes <= MAX_MEMORY) return bytes;
  throw fault(
    file,
    config.settings.get('memory')!,
    `memory is ${config.memory} MiB; expected ${MIN_MEMORY / MIB} to ${MAX_MEMORY / MIB} here, or --memory 64M in its place`,
  );
}

/** A disk of the configuration; relative paths start at the configuration's folder. */
function diskOfSpec(spec: DiskSpec, file: string, grants: GrantPolicy | undefined): HostDisk {
  if (spec.specification !== 'virtio')
    throw fault(file, spec.at.spec, `disk ${spec.vdev} is not a virtio disk; add specification=virtio`);
  if (spec.target === undefined) throw fault(file, spec.at.spec, `disk ${spec.vdev} has no target to serve`);
  if (spec.format !== 'raw')
    throw fault(
      file,
      spec.at.format ?? spec.at.spec,
      `disk ${spec.vdev} is ${spec.format}; only raw images are served`,
    );
  const access = accessOf(`disk ${spec.vdev}`, spec, file, grants);
  if (!access.grantUsage && !spec.trusted)
    throw fault(
      file,
      spec.at.trusted ?? spec.at.spec,
      `disk ${spec.vdev} has an untrusted backend, which would reach all of the guest's memory without grants; let it use them`,
    );
  return {
    path: resolve(dirname(file), spec.target),
    readOnly: spec.access === 'ro',
    dev: spec.vdev,
    ...access,
  };
}

/**
 * How a device is given: as its grant_usage says, and with grants where nothing is said. --grants is the guest's
 * word on all devices, and must not contradict what the toolstack says of one.
 */
function accessOf(
  device: string,
  { grantUsage, at }: Pick<DiskSpec | VirtioSpec, 'grantUsage' | 'at'>,
  file: string,
  grants: GrantPolicy | undefined,
): AccessWish & { readonly grantUsage: boolean } {
  const contradicted = grantUsage === false ? 'require' : 'forbid';
  if (grantUsage !== undefined && grants === contradicted)
    throw fault(
      file,
      at.grant_usage ?? at.spec,
      `${device} has grant_usage=${grantUsage ? 1 : 0}, and --grants ${grants} is its contrary; leave one of them out`,
    );
  if (grants !== undefined || grantUsage === undefined)
    return { grantUsage: grantUsage ?? grants !== 'forbid' };
  return { grantUsage, policy: grantUsage ? 'require' : 'forbid' };
}

/** `PATH` or `PATH,ro`. */
function diskOfOption(text: string, grants: GrantPolicy | undefined): HostDisk {
  const readOnly = text.endsWith(',ro');
  const path = readOnly ? text.slice(0, -3) : text;
  if (path === '') throw new UsageError(`--disk ${text}: expected PATH or PATH,ro`);
  return { path, readOnly, dev: '', grantUsage: grants !== 'forbid' };
}

/** The first of xvda, xvdb, … that no disk has, after those for the nameless ones before `index`. */
export function nextName(disks: readonly Pick<HostDisk, 'dev'>[], index: number): string {
  const taken = new Set(disks.map(({ dev }) => dev));
  const free = [...'abcdefghijklmnopqrstuvwxyz']
    .map((letter) => `xvd${letter}`)
    .filter((name) => !taken.has(name));
  const unnamedBefore = disks.slice(0, index).filter(({ dev }) => dev === '').length;
  const name = free[unnamedBefore];
  if (name === undefined) throw new UsageError('more than 26 disks; give fewer');
  return name;
}

/** A device that is no disk, and what it is. */
function otherOfSpec(
  spec: VirtioSpec,
  file: string,
  grants: GrantPolicy | undefined,
): AccessWish & { readonly grantUsage: boolean; readonly virtioId: number } {
  const { deviceId, type, at } = spec;
  if (deviceId === VIRTIO_ID_RNG || deviceId === VIRTIO_ID_CONSOLE)
    return { ...accessOf(`the device of type ${type}`, spec, file, grants), virtioId: deviceId };
  throw fault(
    file,
    at.type ?? at.spec,
    `type=${type} is not served here; virtio,device3 (console), virtio,device4 (entropy) and disks are`,
  );
}

function modesWithoutGrants(asked: ExposureMode | undefined): readonly ExposureMode[] {
  if (asked === undefined) return ['direct'];
  throw new UsageError(
    `--mode ${asked}: no device uses grants (--grants forbid, grant_usage=0), so there is no exposure mode; leave it out`,
  );
}

/** A backend that the configuration does not trust is not given whole pages. */
function modesFor(
  specs: readonly DiskSpec[],
  asked: ExposureMode | undefined,
  file: string | undefined,
): readonly ExposureMode[] {
  const untrusted = specs.find((spec) => !spec.trusted);
  if (untrusted === undefined) return asked ? [asked] : EXPOSURE_MODES;
  if (asked === 'direct')
    throw fault(
      file!,
      untrusted.at.trusted ?? untrusted.at.spec,
      `disk ${untrusted.vdev} has an untrusted backend, and --mode direct would show it whole pages; use --mode bounce`,
    );
  return [asked ?? 'bounce'];
}
