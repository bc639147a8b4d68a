// Whether a guest's devices use grants, and whether there are enough of them.

import { GUEST_GNTTAB_SIZE } from '../../abi/xen-arm.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import { isToolstackDomain } from '../../toolstack/device-spec.ts';
import { quoted } from '../../toolstack/finding.ts';
import { usesGrants } from '../../toolstack/virtio-spec.ts';
import { type Device, guestDevices, placeOf } from '../devices.ts';
import type { GuestFile } from '../files.ts';
import type { Rule } from '../rule.ts';
import { VIRTIO_KINDS } from '../virtio-kinds.ts';

const untrusted: Rule = {
  id: 'grants-off-untrusted',
  severity: 'error',
  summary: 'A backend that is not trusted gets grants',
  why: 'Without grants a virtio backend is given guest-physical addresses and has to be allowed to map all of the guest. `untrusted` asks the guest to protect itself from just that backend.',
  *check({ guests }) {
    for (const { file, config } of guests)
      for (const disk of config.disks)
        if (disk.specification === 'virtio' && !disk.trusted && !usesGrants(disk))
          yield {
            file,
            place: disk.at.grant_usage ?? disk.at.trusted ?? disk.at.spec,
            message: `the disk ${disk.vdev} is untrusted, and its backend reaches all of the guest's memory`,
            help: 'write grant_usage=1',
          };
  },
};

const driverDomain: Rule = {
  id: 'grants-off-driver-domain',
  severity: 'warning',
  summary: 'A backend outside of domain 0 gets grants',
  why: "With grant_usage=0 the driver domain has to hold the right to map all of the guest's memory, which is what a driver domain is meant to do without.",
  *check(project) {
    for (const { file, devices } of project.devices)
      for (const device of devices)
        if (device.grants === false && device.backend !== undefined && !isToolstackDomain(device.backend))
          yield {
            file,
            place: placeOf(device, 'grants'),
            message: `${device.label} is served by domain ${quoted(String(device.backend))} without grants`,
            help: 'write grant_usage=1, or leave it out: it is the default for a driver domain',
          };
  },
};

const mixed: Rule = {
  id: 'grants-mixed',
  severity: 'warning',
  summary: 'All virtio devices that one domain serves a guest with use grants, or none does',
  why: 'A backend that serves one device without grants can map all of the guest, so the grants of its other devices protect nothing. Some backends (virtio-disk, xen-vhost-frontend) also choose one way for all.',
  *check(project) {
    for (const { file, devices } of project.devices) {
      const withGrants = devices.filter(({ grants }) => grants === true);
      const byBackend = new Map(withGrants.map((device) => [device.backend, device]));
      for (const device of devices) {
        const other = device.backend === undefined ? withGrants[0] : byBackend.get(device.backend);
        if (device.grants === false && other !== undefined)
          yield {
            file,
            place: placeOf(device, 'grants'),
            message: `${device.label} does not use grants, but ${other.label} does`,
            help: 'set the same grant_usage for all devices of a backend',
          };
      }
    }
  },
};

const forced: Rule = {
  id: 'grants-forced',
  severity: 'error',
  summary: 'Where grants are forced, every virtio device has them',
  why: 'A kernel with XEN_VIRTIO_FORCE_GRANT falls back to domain 0 for a device that says nothing of its backend; by its source, Linux since 6.2 lets a device with a node in the device tree but without `iommus` pass, on plain addresses.',
  *check(project) {
    if (!project.forceGrants) return;
    for (const { file, source, devices } of project.devices)
      for (const device of devices)
        if (device.grants === false)
          yield {
            file,
            place: placeOf(device, 'grants'),
            message: `${device.label} does not use grants`,
            help: source === 'device tree' ? 'add iommus = <&xen_iommu DOMAIN>' : 'write grant_usage=1',
          };
  },
};

const ownDomain: Rule = {
  id: 'backend-own-domain',
  severity: 'error',
  summary: 'A guest is not its own backend',
  why: 'Granting pages to oneself maps nothing: Linux hung in virtio_console when dom0 took itself for the backend (dc8ea8714311).',
  *check(project) {
    for (const { file, guest, devices } of project.devices)
      for (const device of devices)
        if (guest !== undefined && device.backend === guest)
          yield {
            file,
            place: placeOf(device, 'backend'),
            message: `${device.label} has the guest itself for its backend`,
          };
  },
};

/** Frames of a grant table unless the configuration or Xen's command line says otherwise. */
const DEFAULT_GRANT_FRAMES = 64;
/** Entries of a frame in version 1, which Arm has; half as many in version 2. */
const ENTRIES_OF_FRAME = 512;
/** References that belong to the console, to Xenstore and to the future. */
const RESERVED_ENTRIES = 8;
/** Descriptors of a queue, which QEMU and Linux agree on unless told otherwise; and pages of its three rings. */
const QUEUE_SIZE = 256;
const RING_PAGES = 3;
const GRANTS_OF_QUEUE = QUEUE_SIZE + RING_PAGES;

/** Queues of a device; of one whose kind is not known, one. */
function queuesOf({ type }: Device): number {
  if (type === undefined) return 1;
  const id = Number.parseInt(type.slice('virtio,device'.length), 16);
  return VIRTIO_KINDS.get(id)?.queues ?? 1;
}

/** Queues of all devices of a guest that use grants. */
function grantQueues(guest: GuestFile, isOfBackend: (device: Device) => boolean = () => true): number {
  return guestDevices(guest)
    .devices.filter((device) => device.grants === true && isOfBackend(device))
    .reduce((sum, device) => sum + queuesOf(device), 0);
}

const tableSize: Rule = {
  id: 'grant-table-size',
  severity: 'warning',
  summary: 'The grant table has an entry for each descriptor of the virtio queues',
  why: `A request needs a reference for each page that it touches, consecutive ones for a buffer, until it ends. If none are left Linux fails the request with an I/O error. Counted are ${QUEUE_SIZE} descriptors a queue at one page each and ${RING_PAGES} pages of rings; buffers that cross a page take more, and so do other frontends.`,
  *check({ guests }) {
    for (const guest of guests) {
      const { maxGrantFrames: frames = DEFAULT_GRANT_FRAMES, maxGrantVersion, settings } = guest.config;
      const perFrame = maxGrantVersion === 2 ? ENTRIES_OF_FRAME / 2 : ENTRIES_OF_FRAME;
      const entries = frames * perFrame - RESERVED_ENTRIES;
      const queues = grantQueues(guest);
      const needed = queues * GRANTS_OF_QUEUE;
      if (needed > entries)
        yield {
          file: guest.file,
          place: settings.get('max_grant_frames')?.value ?? guestDevices(guest).devices[0]!.place,
          message: `${frames} frames x ${perFrame} - ${RESERVED_ENTRIES} = ${entries} references; ${queues} queues x (${QUEUE_SIZE} + ${RING_PAGES}) = ${needed} are needed`,
          help: `write max_grant_frames = ${Math.ceil((needed + RESERVED_ENTRIES) / perFrame)} or more; ${DEFAULT_GRANT_FRAMES} is the default`,
        };
    }
  },
};

const region: Rule = {
  id: 'grant-region',
  severity: 'error',
  summary: 'The grant table fits in the region that the guest maps it to',
  why: `The hypervisor node gives a guest on Arm ${GUEST_GNTTAB_SIZE >> 20} MiB of addresses for its grant table; a frame past them has no place.`,
  *check({ guests }) {
    const most = GUEST_GNTTAB_SIZE / XEN_PAGE_SIZE;
    for (const guest of guests) {
      const value = guest.config.settings.get('max_grant_frames')?.value;
      if (
        value === undefined ||
        (guest.config.maxGrantFrames ?? 0) <= most ||
        guestDevices(guest).devices.length === 0
      )
        continue;
      yield {
        file: guest.file,
        place: value,
        message: `max_grant_frames is ${guest.config.maxGrantFrames}; the region holds ${most}`,
      };
    }
  },
};

const version: Rule = {
  id: 'grant-version-arm',
  severity: 'error',
  summary: 'A guest on Arm uses version 1 of the grant table',
  why: 'Xen on Arm offers version 1 only since XSA-268, and refuses to create a domain that asks for more. A guest with virtio devices of xl.cfg is one on Arm.',
  *check({ guests }) {
    for (const guest of guests)
      if (guest.config.maxGrantVersion === 2 && guestDevices(guest).devices.length > 0)
        yield {
          file: guest.file,
          place: guest.config.settings.get('max_grant_version')!.value,
          message: 'max_grant_version is 2; Xen on Arm offers 1',
          help: 'leave it out',
        };
  },
};

/** Mappings that a frame of the maptrack table has room for. */
const HANDLES_OF_FRAME = 256;

const maptrack: Rule = {
  id: 'backend-maptrack',
  severity: 'warning',
  summary: 'A backend has a handle for each grant that it maps',
  why: `A domain needs a handle for each mapping, ${HANDLES_OF_FRAME} in a frame of max_maptrack_frames. If none are left Xen answers GNTST_no_space, and the requests of all guests of this backend fail.`,
  *check({ guests }) {
    for (const { file, config } of guests) {
      const frames = config.maxMaptrackFrames;
      if (frames === undefined) continue;
      const queues = guests.reduce(
        (sum, guest) => sum + grantQueues(guest, ({ backend }) => backend === config.name),
        0,
      );
      const driverDomainSetting = config.settings.get('driver_domain')?.value;
      const isDriverDomain = driverDomainSetting?.kind === 'number' && Number(driverDomainSetting.text) !== 0;
      const handles = frames * HANDLES_OF_FRAME;
      if (queues * GRANTS_OF_QUEUE <= handles && !(isDriverDomain && frames === 0)) continue;
      yield {
        file,
        place: config.settings.get('max_maptrack_frames')!.value,
        message: `${frames} frames x ${HANDLES_OF_FRAME} = ${handles} mappings; ${queues} queues x (${QUEUE_SIZE} + ${RING_PAGES}) = ${queues * GRANTS_OF_QUEUE} of the guests given here need one each`,
        help: 'raise max_maptrack_frames, or leave it out: 1024 is the default',
      };
    }
  },
};

/** The rules of this file. */
export const GRANT_RULES: readonly Rule[] = [
  untrusted,
  driverDomain,
  mixed,
  forced,
  ownDomain,
  tableSize,
  region,
  version,
  maptrack,
];
