// Disks of a guest configuration with specification=virtio (xl-disk-configuration(5), libxl_device.c).

import { isToolstackDomain } from '../../toolstack/device-spec.ts';
import type { DiskSpec } from '../../toolstack/disk-spec.ts';
import { quoted } from '../../toolstack/finding.ts';
import type { Project } from '../project.ts';
import type { Rule } from '../rule.ts';

/** Each disk of each guest. */
function* disksOf({ guests }: Project): Generator<{ file: string; disk: DiskSpec }> {
  for (const { file, config } of guests) for (const disk of config.disks) yield { file, disk };
}

const backendtype: Rule = {
  id: 'virtio-disk-backendtype',
  severity: 'error',
  summary: 'specification=virtio goes with backendtype=standalone, and with nothing else',
  why: 'libxl takes phy, qdisk and tap for the Xen protocol only and standalone for virtio only, and finds "no suitable backend" for any other pair.',
  *check(project) {
    for (const { file, disk } of disksOf(project)) {
      const { backendtype: type, specification, at } = disk;
      if (type === undefined || (specification === 'virtio') === (type === 'standalone')) continue;
      yield {
        file,
        place: at.backendtype!,
        message: `backendtype=${type} with specification=${specification}`,
        help:
          specification === 'virtio'
            ? 'write backendtype=standalone, or leave it out'
            : 'add specification=virtio',
      };
    }
  },
};

const format: Rule = {
  id: 'virtio-disk-format',
  severity: 'error',
  summary: 'A virtio disk is raw, and has no script',
  why: 'libxl refuses the backendtype standalone, the only one for virtio, for any other format, for an empty drive and with script=. A backend may itself read qcow2 from the path that it is given.',
  *check(project) {
    for (const { file, disk } of disksOf(project)) {
      if (disk.specification !== 'virtio') continue;
      const { at } = disk;
      if (disk.format !== 'raw')
        yield {
          file,
          place: at.format ?? at.spec,
          message: `the virtio disk ${disk.vdev} has format ${disk.format}`,
          help: 'write format=raw',
        };
      if (disk.script !== undefined)
        yield {
          file,
          place: at.script ?? at.spec,
          message: `the virtio disk ${disk.vdev} has a script`,
          help: 'leave script= out',
        };
    }
  },
};

const file: Rule = {
  id: 'virtio-disk-file',
  severity: 'warning',
  summary: 'A virtio disk of domain 0 is a block device',
  why: 'Where domain 0 is the backend libxl looks at the target itself and takes standalone for a block device only; an image file ends in "no suitable backend".',
  *check(project) {
    for (const { file, disk } of disksOf(project)) {
      const { specification, backend, target, at, vdev } = disk;
      // A target without a slash in front is looked for in /dev.
      if (specification !== 'virtio' || !isToolstackDomain(backend) || target === undefined) continue;
      if (!target.startsWith('/') || target.startsWith('/dev/')) continue;
      yield {
        file,
        place: at.target ?? at.spec,
        message: `the virtio disk ${vdev} is the file ${quoted(target)}`,
        help: 'attach it with `losetup -f --show FILE` and name the loop device',
      };
    }
  },
};

const ignored: Rule = {
  id: 'grant-usage-ignored',
  severity: 'warning',
  summary: 'grant_usage stands with specification=virtio only',
  why: "libxl looks at grant_usage for virtio disks only; Xen's own block protocol always uses grants.",
  *check(project) {
    for (const { file, disk } of disksOf(project))
      if (disk.specification === 'xen' && disk.grantUsage !== undefined)
        yield {
          file,
          place: disk.at.grant_usage!,
          message: `grant_usage of the disk ${disk.vdev} does nothing`,
          help: 'add specification=virtio, or leave grant_usage out',
        };
  },
};

const mixed: Rule = {
  id: 'disk-specifications-mixed',
  severity: 'warning',
  summary: 'The disks of a guest all have the same specification',
  why: 'libxl looks for the disks of a running guest in one of two directories and gives up with "both xen and virtio paths are present" when it finds both: xl block-list and its like fail.',
  *check({ guests }) {
    for (const { file, config } of guests) {
      const first = config.disks[0];
      const other = config.disks.find(({ specification }) => specification !== first?.specification);
      if (first === undefined || other === undefined) continue;
      yield {
        file,
        place: other.at.specification ?? other.at.spec,
        message: `the disk ${other.vdev} has specification=${other.specification}, ${first.vdev} has ${first.specification}`,
      };
    }
  },
};

/** The rules of this file. */
export const DISK_RULES: readonly Rule[] = [backendtype, format, file, ignored, mixed];
