// Whether configuration, device tree and Xenstore tell of the same devices. They are compared where it is
// plain that they are about one guest: one of each kind among the files.

import type { Place } from '../../toolstack/finding.ts';
import { type Device, type GuestDevices, placeOf } from '../devices.ts';
import type { Breach, Rule } from '../rule.ts';

const agreement: Rule = {
  id: 'devices-disagree',
  severity: 'error',
  summary: 'Configuration, device tree and Xenstore of a guest tell of the same devices',
  why: 'The guest believes the device tree and the backend Xenstore. If they differ in a base, an interrupt, a backend or in grants, requests go nowhere, or the guest sends plain addresses to a backend that expects grants.',
  *check(project) {
    const sources = project.devices;
    const only = (source: GuestDevices['source']) => {
      const found = sources.filter((each) => each.source === source);
      return found.length === 1 ? found[0] : undefined;
    };
    const [configuration, tree, store] = [only('configuration'), only('device tree'), only('xenstore')];
    // A partial tree tells of no virtio device at all, and is no description of the guest.
    const described = tree?.devices.length === 0 ? undefined : tree;
    yield* compared(configuration, described);
    yield* compared(configuration, store);
    yield* compared(described, store);
  },
};

function* compared(a: GuestDevices | undefined, b: GuestDevices | undefined): Generator<Breach> {
  if (a === undefined || b === undefined) return;
  yield* missing(a, b);
  yield* missing(b, a);
  const others = byBase(b);
  for (const device of a.devices) {
    const other = others.get(device.base);
    if (device.base !== undefined && other !== undefined) yield* differences(device, a, other, b);
  }
}

function byBase({ devices }: GuestDevices): Map<number | undefined, Device> {
  return new Map(devices.map((device) => [device.base, device]));
}

/** Devices of `a` that `b` has nothing of. */
function* missing(a: GuestDevices, b: GuestDevices): Generator<Breach> {
  const others = byBase(b);
  for (const { base, label, place } of a.devices)
    if (base !== undefined && !others.has(base))
      yield { file: a.file, place, message: `${label} at 0x${base.toString(16)} is not in ${b.file}` };
}

function* differences(device: Device, a: GuestDevices, other: Device, b: GuestDevices): Generator<Breach> {
  const report = (part: 'irq' | 'grants' | 'backend', here: string, there: string): Breach => ({
    file: b.file,
    place: placeOf(other, part),
    message: `${other.label} ${there}; ${whereIs(a.file, placeOf(device, part))} it ${here}`,
  });
  if (device.irq !== undefined && other.irq !== undefined && device.irq !== other.irq)
    yield report('irq', `has interrupt ${device.irq}`, `has interrupt ${other.irq}`);
  if (device.grants !== undefined && other.grants !== undefined && device.grants !== other.grants)
    yield report('grants', grantWords(device), grantWords(other));
  if (
    typeof device.backend === 'number' &&
    typeof other.backend === 'number' &&
    device.backend !== other.backend
  )
    yield report('backend', `is served by domain ${device.backend}`, `is served by domain ${other.backend}`);
}

function grantWords({ grants }: Device): string {
  return grants ? 'uses grants' : 'uses no grants';
}

function whereIs(file: string, { line }: Place): string {
  return `in ${file}, line ${line},`;
}

/** The rules of this file. */
export const AGREEMENT_RULES: readonly Rule[] = [agreement];
