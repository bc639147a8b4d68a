// Registers and interrupts of virtio-mmio devices: the windows that Xen sets aside for them on Arm
// (public/arch-arm.h), and what libxl and QEMU make of them.

import {
  GUEST_VIRTIO_MMIO_BASE,
  GUEST_VIRTIO_MMIO_SIZE,
  GUEST_VIRTIO_MMIO_SPI_FIRST,
  GUEST_VIRTIO_MMIO_SPI_LAST,
  VIRTIO_MMIO_DEV_SIZE,
} from '../../abi/xen-arm.ts';
import { isCompatible } from '../../toolstack/device-tree/tree.ts';
import { quoted } from '../../toolstack/finding.ts';
import { type Device, type GuestDevices, guestDevices, placeOf } from '../devices.ts';
import type { Project } from '../project.ts';
import type { Breach, Rule } from '../rule.ts';

/** Devices that libxl can place: one for each interrupt. */
const SLOTS = GUEST_VIRTIO_MMIO_SPI_LAST - GUEST_VIRTIO_MMIO_SPI_FIRST + 1;

function hex(number: number): string {
  return `0x${number.toString(16)}`;
}

/** The guests that libxl places, in whichever file; a tree of another origin has an address map of its own. */
function placedByLibxl(project: Project): GuestDevices[] {
  const foreign = new Set(
    project.trees.filter(({ tree }) => !isCompatible(tree.root, 'xen,xenvm')).map(({ file }) => file),
  );
  return project.devices.filter(({ file }) => !foreign.has(file));
}

const slots: Rule = {
  id: 'virtio-mmio-slots',
  severity: 'error',
  summary: `A guest has at most ${SLOTS} virtio-mmio devices`,
  why: `libxl gives each device an interrupt of its own from ${GUEST_VIRTIO_MMIO_SPI_FIRST} to ${GUEST_VIRTIO_MMIO_SPI_LAST}, disks included, and does not create a guest with more.`,
  *check({ guests }) {
    for (const { file, devices } of guests.map(guestDevices))
      for (const [index, { place, label }] of devices.entries())
        if (index >= SLOTS)
          yield { file, place, message: `${label} is number ${index + 1}; there is room for ${SLOTS}` };
  },
};

const eleventh: Rule = {
  id: 'virtio-mmio-eleventh',
  severity: 'warning',
  summary: 'QEMU serves only the first ten virtio-mmio devices',
  why: `libxl hands out the interrupts ${GUEST_VIRTIO_MMIO_SPI_FIRST} to ${GUEST_VIRTIO_MMIO_SPI_LAST}, which are eleven; QEMU computes their number as ${GUEST_VIRTIO_MMIO_SPI_LAST} - ${GUEST_VIRTIO_MMIO_SPI_FIRST} and so has ten. The eleventh device finds nobody behind its registers.`,
  *check(project) {
    for (const { file, devices } of placedByLibxl(project))
      for (const device of devices)
        if (device.irq === GUEST_VIRTIO_MMIO_SPI_LAST)
          yield {
            file,
            place: placeOf(device, 'irq'),
            message: `${device.label} has interrupt ${device.irq}, the eleventh; QEMU knows ten`,
            help: 'serve it with another program than QEMU, or do without it',
          };
  },
};

const window: Rule = {
  id: 'virtio-mmio-window',
  severity: 'error',
  summary: 'The registers of a virtio-mmio device lie in the window for them',
  why: `Xen sets ${hex(GUEST_VIRTIO_MMIO_BASE)} to ${hex(GUEST_VIRTIO_MMIO_BASE + GUEST_VIRTIO_MMIO_SIZE - 1)} aside on Arm, and libxl and QEMU cut it into pieces of ${hex(VIRTIO_MMIO_DEV_SIZE)} bytes. An access elsewhere never reaches the backend, or hits something else.`,
  *check(project) {
    for (const { file, devices } of placedByLibxl(project))
      for (const device of devices) {
        const message = windowFault(device);
        if (message !== undefined) yield { file, place: placeOf(device, 'base'), message };
      }
  },
};

function windowFault({ label, base, size }: Device): string | undefined {
  if (base === undefined) return undefined;
  const offset = base - GUEST_VIRTIO_MMIO_BASE;
  if (offset < 0 || offset + VIRTIO_MMIO_DEV_SIZE > GUEST_VIRTIO_MMIO_SIZE)
    return `${label} has its registers at ${hex(base)}, outside of the window`;
  if (offset % VIRTIO_MMIO_DEV_SIZE !== 0)
    return `${label} has its registers at ${hex(base)}, no multiple of ${hex(VIRTIO_MMIO_DEV_SIZE)}`;
  if (size !== undefined && size !== VIRTIO_MMIO_DEV_SIZE)
    return `${label} has ${hex(size)} bytes of registers; expected ${hex(VIRTIO_MMIO_DEV_SIZE)}`;
  return undefined;
}

const interrupt: Rule = {
  id: 'virtio-mmio-irq',
  severity: 'error',
  summary: 'The interrupt of a virtio-mmio device is one of those for them',
  why: `Xen sets the shared interrupts ${GUEST_VIRTIO_MMIO_SPI_FIRST} to ${GUEST_VIRTIO_MMIO_SPI_LAST} aside on Arm (in a device tree 1 to ${GUEST_VIRTIO_MMIO_SPI_LAST - 32}, counted from 32). Others belong to the hardware or do not exist for the guest.`,
  *check(project) {
    for (const { file, devices } of placedByLibxl(project))
      for (const device of devices) {
        const { label, irq } = device;
        if (irq !== undefined && (irq < GUEST_VIRTIO_MMIO_SPI_FIRST || irq > GUEST_VIRTIO_MMIO_SPI_LAST))
          yield {
            file,
            place: placeOf(device, 'irq'),
            message: `${label} has interrupt ${irq}; expected ${GUEST_VIRTIO_MMIO_SPI_FIRST} to ${GUEST_VIRTIO_MMIO_SPI_LAST}`,
          };
      }
  },
};

const overlap: Rule = {
  id: 'virtio-mmio-overlap',
  severity: 'error',
  summary: 'No two devices of a guest share registers or an interrupt',
  why: 'A write to the registers of one device would reach the backend of another, and a shared edge-triggered interrupt loses notifications.',
  *check(project) {
    for (const guest of project.devices) {
      yield* sharedRegisters(guest);
      yield* sharedInterrupts(guest);
    }
  },
};

function* sharedRegisters({ file, devices }: GuestDevices): Generator<Breach> {
  const placed = devices.filter((device) => device.base !== undefined).sort((a, b) => a.base! - b.base!);
  for (const [index, device] of placed.slice(1).entries()) {
    const before = placed[index]!;
    if (before.base! + (before.size ?? VIRTIO_MMIO_DEV_SIZE) > device.base!)
      yield {
        file,
        place: placeOf(device, 'base'),
        message: `the registers of ${device.label} at ${hex(device.base!)} overlap those of ${before.label} at ${hex(before.base!)}`,
      };
  }
}

function* sharedInterrupts({ file, devices }: GuestDevices): Generator<Breach> {
  const owners = new Map<number, Device>();
  for (const device of devices) {
    const { irq, label } = device;
    if (irq === undefined) continue;
    const owner = owners.get(irq);
    if (owner === undefined) owners.set(irq, device);
    else
      yield {
        file,
        place: placeOf(device, 'irq'),
        message: `${label} has interrupt ${irq}, as ${owner.label} has`,
      };
  }
}

const passedThrough: Rule = {
  id: 'virtio-mmio-passthrough-irq',
  severity: 'error',
  summary: '`irqs` passes no interrupt through that a virtio device of the guest has',
  why: 'libxl does not create a guest whose physical interrupts collide with those of its virtio-mmio devices.',
  *check({ guests }) {
    for (const guest of guests) {
      const value = guest.config.settings.get('irqs')?.value;
      const taken = new Set(guestDevices(guest).devices.map(({ irq }) => irq));
      if (value?.kind !== 'list') continue;
      for (const item of value.items)
        if (item.kind !== 'list' && taken.has(Number(item.text)))
          yield {
            file: guest.file,
            place: item,
            message: `interrupt ${quoted(item.text)} is that of a virtio device`,
          };
    }
  },
};

const spiCount: Rule = {
  id: 'virtio-mmio-nr-spis',
  severity: 'error',
  summary: '`nr_spis`, where it is given, covers the interrupts of the virtio devices',
  why: 'libxl does not create a guest with fewer shared interrupts than its devices need: the highest number less 32, plus one.',
  *check({ guests }) {
    for (const guest of guests) {
      const value = guest.config.settings.get('nr_spis')?.value;
      const irqs = guestDevices(guest).devices.map(({ irq }) => irq ?? 0);
      const needed = Math.max(...irqs, 31) - 31;
      if (value !== undefined && value.kind !== 'list' && Number(value.text) < needed)
        yield {
          file: guest.file,
          place: value,
          message: `nr_spis is ${quoted(value.text)}; the virtio devices need ${needed}`,
          help: `leave it out, or write nr_spis = ${needed}`,
        };
    }
  },
};

/** The rules of this file. */
export const MMIO_RULES: readonly Rule[] = [
  slots,
  eleventh,
  window,
  interrupt,
  overlap,
  passedThrough,
  spiCount,
];
