// What `grantio serve` was asked for, checked before anything is started: from the command line, or from a file of
// devices (serve-config.ts). Before serve-run.ts.

import { availableParallelism } from 'node:os';
import { passedSockets } from '../hosts/linux/service-manager.ts';
import { checkSocketPath } from '../hosts/linux/unix-socket.ts';
import type { DeviceSpec } from '../serving/devices.ts';
import { OPERATION_OPTIONS, type OperationPlan, operationOptionsFor, operationPlan } from './operation.ts';
import { queuesOf, servedKind } from './serve-kinds.ts';
import { type GivenOptions, OptionReader, type ServeOption } from './serve-options.ts';
import { UsageError } from './usage.ts';

/** Options that every device has. */
export const DEVICE_OPTIONS: readonly ServeOption[] = [
  { name: 'socket-path', value: '<path>', help: 'Unix socket to listen on' },
  {
    name: 'fd',
    value: '<n>',
    help: 'the same as a descriptor: a socket that listens, or one that is connected',
  },
  { name: 'name', value: '<name>', help: 'what it is called in the log, and by systemd (default: its kind)' },
];

/** Options of the process that serves devices. */
export const PROCESS_OPTIONS: readonly ServeOption[] = [
  {
    name: 'workers',
    value: '<n>',
    help: 'threads that serve queues, no more than there are queues (default: one for each processor, up to 8)',
  },
  {
    name: 'poll-us',
    value: '<n>',
    help: 'longest time to poll an idle queue, in microseconds (default: 50)',
  },
  { name: 'restricted', help: "reach only what the guest's IOMMU maps; guests without are refused" },
  { name: 'own-process', help: 'each device in a process of its own, which is started again when it dies' },
  ...OPERATION_OPTIONS,
  { name: 'json', help: 'one line on standard output when all devices are served' },
];

const NAME = /^\w[\w.-]{0,63}$/;

/** Where a frontend finds a device. `passed` is a socket that systemd opened, which is found by the device's name. */
export type Place = { readonly path: string } | { readonly fd: number } | { readonly passed: string };

/** One device. */
export interface PlannedDevice {
  readonly name: string;
  readonly spec: DeviceSpec;
  readonly place: Place;
  /** Its options, for a process of its own. */
  readonly given: GivenOptions;
}

/** What to do. */
export interface ServePlan {
  readonly devices: readonly PlannedDevice[];
  readonly workers: number;
  readonly pollMicroseconds: number;
  readonly restricted: boolean;
  readonly ownProcess: boolean;
  readonly operation: OperationPlan;
  readonly json: boolean;
}

/** Plans one device. Throws UsageError. */
export function planDevice(
  kind: string,
  given: GivenOptions,
  options = new OptionReader(given),
): PlannedDevice {
  const served = servedKind(kind);
  if (served === undefined) throw new UsageError(`there is no device of the kind '${kind}'`);
  const name = options.text('name') ?? kind;
  if (!NAME.test(name))
    throw options.wrong('name', `'${name}': expected up to 64 letters, digits, and . _ - after the first`);
  return { name, spec: served.spec(options), place: placeOf(options, name), given };
}

/** The same with the options of the process. Throws UsageError. */
export function planServe(devices: readonly PlannedDevice[], given: GivenOptions): ServePlan {
  const options = new OptionReader(given);
  checkNames(devices);
  const operation = operationPlan((name) => options.text(name));
  const ownProcess = options.flag('own-process');
  // A thread more than there are queues would have nothing to do, and takes a while to start.
  const queues = devices.reduce((sum, { spec }) => sum + queuesOf(spec), 0);
  if (ownProcess) for (const { name } of devices) operationOptionsFor(operation, name);
  return {
    devices,
    workers: Math.min(options.number('workers', 1, 64, Math.min(availableParallelism(), 8)), queues),
    pollMicroseconds: options.number('poll-us', 0, 10_000, 50),
    restricted: options.flag('restricted'),
    ownProcess,
    operation,
    json: options.flag('json'),
  };
}

function placeOf(options: OptionReader, name: string): Place {
  const given = options.either('socket-path', 'fd');
  if (given?.name === 'fd') return { fd: options.number('fd', 3, 2 ** 20, 0) };
  if (given === undefined) {
    if (passedSockets(process.env, process.pid).length > 0) return { passed: name };
    throw options.wrong('socket-path', 'or --fd is missing: where the frontend connects');
  }
  try {
    checkSocketPath(given.text);
  } catch (error) {
    throw options.wrong('socket-path', `cannot be used: ${error instanceof Error ? error.message : error}`);
  }
  return { path: given.text };
}

function checkNames(devices: readonly PlannedDevice[]): void {
  const names = new Set<string>();
  for (const { name } of devices) {
    if (names.has(name)) throw new UsageError(`two devices have the name '${name}'; give each its own`);
    names.add(name);
  }
}
