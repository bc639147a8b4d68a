// What `grantio xen-backend` was asked for, checked before anything is started. After xen-backend.ts, before
// xen-backend-run.ts.

import { MMIO_WINDOW_SIZE } from '../abi/virtio-mmio.ts';
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import type { ConsoleConnection } from '../serving/console-device.ts';
import type { DeviceSpec } from '../serving/devices.ts';
import { diskSpec, type XenDeviceOptions } from '../serving/xen-devices.ts';
import type { AttachedDevice } from '../serving/xen-loop.ts';
import type { XenWork } from '../serving/xen-thread.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import { OPERATION_OPTIONS, type OperationPlan, operationPlan } from './operation.ts';
import { connectionOf } from './serve-console.ts';
import { type GivenOptions, OptionReader, type ServeOption } from './serve-options.ts';
import { UsageError } from './usage.ts';

/** What a reboot of the host empties, because ids of domains are given anew then. */
const STATE = '/run/grantio/xen';

/** Options of which the order matters: --mmio is a place, and what comes after it a device there. */
export const PLACE_OPTIONS: readonly ServeOption[] = [
  { name: 'mmio', value: '<base>,irq=<n>', help: 'where the next device is found by the guest' },
  { name: 'disk', value: '<path[,ro]>', help: 'there: a disk on this raw image, or block device' },
  { name: 'rng', help: 'there: a source of entropy' },
  {
    name: 'console',
    value: '<connection>',
    help:
      'there: a console, connected to socket:PATH, pty:PATH, log:PATH or stdio; without --domain: where consoles of ' +
      'all guests lead, with {domain} and {device} in the path',
  },
];

/** All others. */
export const XEN_OPTIONS: readonly ServeOption[] = [
  { name: 'domain', value: '<id>', help: 'attach to this guest by hand, instead of watching xenstore' },
  {
    name: 'grants',
    value: '<on|off>',
    help: 'with --domain: reach only what the guest grants (on, default), or all of its memory (off)',
  },
  { name: 'access', value: '<way>', help: 'map what is granted (default), or copy it' },
  { name: 'direct', help: "disks past this domain's page cache (O_DIRECT)" },
  { name: 'queues', value: '<n>', help: 'request queues of a disk (default: 1)' },
  { name: 'queue-size', value: '<n>', help: 'descriptors of a queue, a power of two (default: 256)' },
  {
    name: 'state',
    value: '<folder>',
    help: `keep devices there for a backend that takes the place of this one (default: ${STATE}), or none`,
  },
  ...OPERATION_OPTIONS,
  { name: 'json', help: 'one line on standard output when everything is served' },
];

/** An option as it was given, in the order of the call. */
export interface GivenPlace {
  readonly name: string;
  readonly value: string | true;
}

/** What to do. */
export interface XenPlan {
  readonly work: XenWork;
  /** Where devices are kept for a successor; undefined if they are not. */
  readonly folder: string | undefined;
  readonly operation: OperationPlan;
  readonly json: boolean;
}

/** Registers lie below 4 GiB; interrupt lines of Arm's GIC go further than those of a PC. */
const MOST_ADDRESS = 2 ** 32;
const MOST_IRQ = 1019;
const LOG_LIMIT = 16 * 2 ** 20;

/** Throws UsageError. */
export function planXenBackend(given: GivenOptions, places: readonly GivenPlace[]): XenPlan {
  const options = new OptionReader(given);
  const operation = operationPlan((name) => options.text(name));
  const devices = deviceOptions(options);
  const domain = options.number('domain', 0, DOMID_FIRST_RESERVED - 1, undefined);
  const work: XenWork =
    domain === undefined
      ? { watch: { ...devices, console: watchedConsole(options, places) } }
      : { attach: attachedDevices(options, domainId(domain), places, devices) };
  const state = options.text('state') ?? STATE;
  const folder = state === 'none' ? undefined : state;
  return { work, folder, operation, json: options.flag('json') };
}

function deviceOptions(options: OptionReader): XenDeviceOptions {
  const queueSize = options.number('queue-size', 4, 32768, 256);
  if ((queueSize & (queueSize - 1)) !== 0)
    throw options.wrong('queue-size', `'${queueSize}': expected a power of two`);
  return {
    disk: {
      direct: options.flag('direct'),
      engine: 'auto',
      queues: options.number('queues', 1, 64, 1),
      queueSize,
    },
    console: undefined,
    access: options.choice('access', ['map', 'copy']),
  };
}

/** Where consoles of all guests lead. */
function watchedConsole(options: OptionReader, places: readonly GivenPlace[]): ConsoleConnection | undefined {
  const stray = places.find(({ name }) => name !== 'console');
  if (stray !== undefined)
    throw options.wrong(stray.name, 'is for --domain ID; without it, xenstore says what is served where');
  // Whether grants are required is the toolstack's to say, for each device.
  if (options.text('grants') !== undefined)
    throw options.wrong(
      'grants',
      'is for --domain ID; without it, grant_usage in xenstore says it of each device',
    );
  const [first, second] = places;
  if (first === undefined) return undefined;
  if (second !== undefined) throw options.wrong('console', 'is given twice');
  const connection = connectionOf(options, 'console', `${first.value}`, LOG_LIMIT);
  if (!('path' in connection) || !connection.path.includes('{domain}'))
    throw options.wrong(
      'console',
      `'${first.value}': expected {domain} in its path, for there may be many guests`,
    );
  return connection;
}

function attachedDevices(
  options: OptionReader,
  guest: DomainId,
  places: readonly GivenPlace[],
  { disk, access }: XenDeviceOptions,
): AttachedDevice[] {
  const reach = options.choice('grants', ['on', 'off']) === 'on' ? access : 'plain';
  const devices: AttachedDevice[] = [];
  let place: Place | undefined;
  for (const { name, value } of places) {
    if (name === 'mmio') {
      if (place !== undefined) throw withoutDevice(options, place);
      place = placeOf(options, `${value}`);
      continue;
    }
    if (place === undefined)
      throw options.wrong(name, 'comes after the --mmio BASE,irq=N at which the guest finds it');
    const spec = specOf(options, name, `${value}`, { guest, devid: devices.length, disk });
    const { base, irq } = place;
    devices.push({
      name: `${guest}/${spec.kind}@0x${base.toString(16)}`,
      spec,
      guest,
      base,
      irq,
      access: reach,
    });
    place = undefined;
  }
  if (place !== undefined) throw withoutDevice(options, place);
  if (devices.length === 0)
    throw options.wrong(
      'domain',
      'needs devices: --mmio BASE,irq=N and then --disk PATH, --rng or --console',
    );
  refuseClashes(devices);
  return devices;
}

interface Place {
  readonly text: string;
  readonly base: number;
  readonly irq: number;
}

function placeOf(options: OptionReader, text: string): Place {
  const [, address, line] = /^(0x[0-9a-f]+|\d+),irq=(\d+)$/i.exec(text) ?? [];
  if (address === undefined)
    throw options.wrong('mmio', `'${text}': expected BASE,irq=N, such as 0xd0000000,irq=5`);
  const [base, irq] = [Number(address), Number(line)];
  if (base % 4 !== 0 || base + MMIO_WINDOW_SIZE > MOST_ADDRESS)
    throw options.wrong('mmio', `'${text}': expected a multiple of 4 below 4 GiB`);
  if (irq > MOST_IRQ) throw options.wrong('mmio', `'${text}': expected an interrupt line up to ${MOST_IRQ}`);
  return { text, base, irq };
}

function withoutDevice(options: OptionReader, { text }: Place): UsageError {
  return options.wrong('mmio', `${text}: no device is there; add --disk PATH, --rng or --console after it`);
}

function specOf(
  options: OptionReader,
  name: string,
  value: string,
  { guest, devid, disk }: { guest: DomainId; devid: number; disk: XenDeviceOptions['disk'] },
): DeviceSpec {
  if (name === 'rng') return { kind: 'rng' };
  if (name === 'disk') {
    const readOnly = value.endsWith(',ro');
    const params = readOnly ? value.slice(0, -',ro'.length) : value;
    if (params === '') throw options.wrong('disk', `'${value}': expected PATH or PATH,ro`);
    return diskSpec({ guest, devid, disk: { params, readOnly, dev: '' } }, { disk });
  }
  const connection = connectionOf(options, name, value, LOG_LIMIT);
  return { kind: 'console', ports: [{ name: '', isConsole: true, connection }] };
}

function refuseClashes(devices: readonly AttachedDevice[]): void {
  for (const [index, one] of devices.entries()) {
    for (const other of devices.slice(index + 1)) {
      if (one.irq === other.irq)
        throw new UsageError(`--mmio: two devices have the interrupt line ${one.irq}; give each its own`);
      if (Math.abs(one.base - other.base) < MMIO_WINDOW_SIZE)
        throw new UsageError(
          `--mmio: the windows at 0x${one.base.toString(16)} and 0x${other.base.toString(16)} overlap; ` +
            `each has 0x${MMIO_WINDOW_SIZE.toString(16)} bytes`,
        );
    }
  }
}
