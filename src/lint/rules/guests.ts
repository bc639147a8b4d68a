// What kind of guest virtio devices of a configuration are for, the ids of devices, and the device model.

import { stringsOf } from '../../toolstack/device-tree/tree.ts';
import type { Place } from '../../toolstack/finding.ts';
import type { XlAtom } from '../../toolstack/xl-cfg-parser.ts';
import { guestDevices } from '../devices.ts';
import type { GuestFile } from '../files.ts';
import type { Project } from '../project.ts';
import type { Rule } from '../rule.ts';
import { VIRTIO_KINDS } from '../virtio-kinds.ts';

const guestType: Rule = {
  id: 'virtio-guest-type',
  severity: 'error',
  summary: 'A guest with virtio devices has type = "pvh"',
  why: 'libxl announces virtio devices in the device tree of a guest on Arm, where all guests are PVH: it converts "pv" with a warning and refuses "hvm". On x86 nothing announces them.',
  *check({ guests }) {
    for (const guest of guests) {
      const { type, settings } = guest.config;
      if (type === undefined || type === 'pvh' || guestDevices(guest).devices.length === 0) continue;
      const place = (settings.get('type') ?? settings.get('builder'))!.value;
      yield {
        file: guest.file,
        place,
        message: `the guest has virtio devices and is of type "${type}"`,
        help: 'write type = "pvh"',
      };
    }
  },
};

const armOnly: Rule = {
  id: 'virtio-arm-no-hotplug',
  severity: 'note',
  summary: 'Virtio devices of a configuration exist on Arm only, from creation on',
  why: 'libxl places them in the device tree that it builds for a guest on Arm, and refuses to attach or detach them later.',
  *check({ guests }) {
    for (const guest of guests) {
      const [first, ...more] = guestDevices(guest).devices;
      if (first === undefined) continue;
      const whose = more.length === 0 ? 'this device exists' : `this device and ${more.length} more exist`;
      yield {
        file: guest.file,
        place: first.place,
        message: `${whose} on Arm only and cannot be attached or detached later`,
      };
    }
  },
};

const deviceId: Rule = {
  id: 'virtio-device-id',
  severity: 'warning',
  summary: 'The id in "virtio,device<id>" is hexadecimal, and assigned',
  why: 'The id is written in hexadecimal without 0x; virtio 1.3 counts devices in decimal. The file system, 26, is device1a; device26 is 38.',
  *check(project) {
    for (const { file, place, id } of deviceIds(project)) {
      if (VIRTIO_KINDS.has(Number.parseInt(id, 16))) continue;
      const decimal = VIRTIO_KINDS.get(Number(id));
      yield {
        file,
        place,
        message: `device${id} is id ${Number.parseInt(id, 16)}, which is not assigned`,
        ...(decimal && { help: `for the ${decimal.name}, ${id}, write device${Number(id).toString(16)}` }),
      };
    }
  },
};

/** Every "virtio,device<id>" of the project. */
function* deviceIds(project: Project): Generator<{ file: string; place: Place; id: string }> {
  const idIn = (type: string | undefined) => /^virtio,device([0-9a-f]{1,8})$/.exec(type ?? '')?.[1];
  for (const { file, config } of project.guests)
    for (const { type, at } of config.virtio) {
      const id = idIn(type);
      if (id !== undefined) yield { file, place: at.type ?? at.spec, id };
    }
  for (const { file, visits } of project.trees)
    for (const { node } of visits)
      for (const type of stringsOf(node.properties.get('compatible')) ?? []) {
        const id = idIn(type);
        if (id !== undefined)
          yield { file, place: node.properties.get('compatible')?.place ?? node.place!, id };
      }
  for (const { file, devices } of project.stores)
    for (const { backends } of devices)
      for (const directory of backends.values()) {
        const entry = directory.get('type');
        const id = idIn(entry?.value);
        if (entry !== undefined && id !== undefined) yield { file, place: entry.valuePlace, id };
      }
}

/** The strings of the settings that go to the device model's command line. */
function* deviceModelArguments({ config }: GuestFile): Generator<XlAtom> {
  for (const key of ['device_model_args', 'device_model_args_pv', 'device_model_args_hvm']) {
    const value = config.settings.get(key)?.value;
    if (value?.kind !== 'list') continue;
    for (const item of value.items) if (item.kind !== 'list') yield item;
  }
}

const accessPlatform: Rule = {
  id: 'qemu-iommu-platform',
  severity: 'error',
  summary: 'QEMU offers ACCESS_PLATFORM for each virtio device',
  why: 'A guest that restricts access refuses a device without VIRTIO_F_ACCESS_PLATFORM ("device must provide VIRTIO_F_ACCESS_PLATFORM"), and one that does not would use plain addresses. QEMU offers it with iommu_platform=on only.',
  *check({ guests }) {
    for (const guest of guests)
      for (const argument of deviceModelArguments(guest))
        if (
          /^virtio-[a-z0-9-]+(,|$)/.test(argument.text) &&
          !/,iommu_platform=(on|true|yes)(,|$)/.test(argument.text)
        )
          yield {
            file: guest.file,
            place: argument,
            message: 'this device does not offer ACCESS_PLATFORM',
            help: `write "${/^[^,]*/.exec(argument.text)![0]},iommu_platform=on…"`,
          };
  },
};

const forceLegacy: Rule = {
  id: 'qemu-force-legacy',
  severity: 'error',
  summary: 'QEMU serves virtio-mmio devices of version 2',
  why: "QEMU's virtio-mmio is of the old version unless told otherwise; grants need VIRTIO_F_VERSION_1, and a guest that restricts access refuses a device without it.",
  *check({ guests }) {
    for (const guest of guests) {
      const given = [...deviceModelArguments(guest)];
      const first = given.find(({ text }) => /^virtio-[a-z0-9-]*device(,|$)/.test(text));
      if (first === undefined || given.some(({ text }) => text === 'virtio-mmio.force-legacy=false'))
        continue;
      yield {
        file: guest.file,
        place: first,
        message: 'virtio-mmio of QEMU is of the old version here',
        help: 'add "-global", "virtio-mmio.force-legacy=false"',
      };
    }
  },
};

/** The rules of this file. */
export const GUEST_RULES: readonly Rule[] = [guestType, armOnly, deviceId, accessPlatform, forceLegacy];
