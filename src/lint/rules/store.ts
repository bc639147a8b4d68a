// What the toolstack writes to Xenstore about a virtio device, for its backend to read (libxl_virtio.c,
// libxl_disk.c).

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import { type Place, quoted } from '../../toolstack/finding.ts';
import type { StoreDevice, StoreDirectory } from '../../toolstack/store-devices.ts';
import type { StoreEntry } from '../../toolstack/xenstore-dump.ts';
import { firstPlace } from '../devices.ts';
import type { Project } from '../project.ts';
import type { Rule } from '../rule.ts';

/** One backend directory of one device. */
interface Backend {
  readonly file: string;
  readonly device: StoreDevice;
  /** The domain that owns the directory. */
  readonly domain: number;
  readonly directory: StoreDirectory;
  readonly path: string;
}

/** Each backend directory of each device. */
function* backendsOf({ stores }: Project): Generator<Backend> {
  for (const { file, devices } of stores)
    for (const device of devices)
      for (const [domain, directory] of device.backends) {
        const path = `/local/domain/${domain}/backend/${device.kind}/${device.frontend}/${device.id}`;
        yield { file, device, domain, directory, path };
      }
}

/** Each value of one name in the backend directories. */
function* valuesOf(project: Project, name: string): Generator<Backend & { entry: StoreEntry }> {
  for (const backend of backendsOf(project)) {
    const entry = backend.directory.get(name);
    if (entry !== undefined) yield { ...backend, entry };
  }
}

function placeOfDirectory(directory: StoreDirectory): Place {
  for (const { line, column } of directory.values()) return { line, column };
  return { line: 1, column: 1 };
}

/** What the backend of each kind of device cannot do without. */
const NEEDED = {
  virtio: ['frontend', 'frontend-id', 'state', 'irq', 'base', 'type', 'transport', 'grant_usage'],
  virtio_disk: [
    'frontend',
    'frontend-id',
    'state',
    'irq',
    'base',
    'params',
    'mode',
    'specification',
    'transport',
    'grant_usage',
  ],
} as const;

const keys: Rule = {
  id: 'xenstore-keys',
  severity: 'error',
  summary: 'A backend directory has all that the backend needs',
  why: 'A backend that has to guess guesses wrong: without grant_usage, for one, some take the first address that the guest sends for the answer, and leave the choice to the guest.',
  *check(project) {
    for (const { file, device, directory, path } of backendsOf(project))
      for (const name of NEEDED[device.kind])
        if (!directory.has(name))
          yield { file, place: placeOfDirectory(directory), message: `${path} has no ${name}` };
  },
};

const base: Rule = {
  id: 'xenstore-base',
  severity: 'error',
  summary: 'base is hexadecimal with 0x for virtio, decimal for virtio_disk',
  why: 'libxl writes the two kinds differently, and reads the base of a disk back as decimal, where "0x2000000" is 0. A backend has to read both.',
  *check(project) {
    for (const { file, device, entry, path } of valuesOf(project, 'base')) {
      const { value, valuePlace: place } = entry;
      if (device.kind === 'virtio' ? /^0x[0-9a-f]+$/.test(value) : /^[1-9][0-9]*$/.test(value)) continue;
      const number = /^(?:0x[0-9a-fA-F]{1,13}|[0-9]{1,15})$/.test(value) ? Number(value) : undefined;
      const form = device.kind === 'virtio' ? 'hexadecimal with 0x' : 'decimal';
      const help = number && {
        help: `write "${device.kind === 'virtio' ? `0x${number.toString(16)}` : number}"`,
      };
      yield { file, place, message: `base of ${path} is ${quoted(value)}, not ${form}`, ...help };
    }
  },
};

const numbers: Rule = {
  id: 'xenstore-values',
  severity: 'error',
  summary: 'irq is decimal, grant_usage 0 or 1, transport mmio',
  why: 'C programs read "yes" as 0, so that grants are off; other transports than mmio are not announced to the guest.',
  *check(project) {
    const forms: readonly [name: string, form: RegExp, expected: string][] = [
      ['irq', /^[0-9]{1,4}$/, 'a decimal number'],
      ['grant_usage', /^[01]$/, '0 or 1'],
      ['transport', /^mmio$/, 'mmio'],
    ];
    for (const [name, form, expected] of forms)
      for (const { file, entry, path } of valuesOf(project, name))
        if (!form.test(entry.value))
          yield {
            file,
            place: entry.valuePlace,
            message: `${name} of ${path} is ${quoted(entry.value)}; expected ${expected}`,
          };
  },
};

const type: Rule = {
  id: 'xenstore-type',
  severity: 'error',
  summary: 'type is "virtio,device<id>", its comma included',
  why: 'The value has a comma, and so has the list that it comes from: a program that splits at every comma leaves "virtio" here, and "device22" for an unknown setting.',
  *check(project) {
    for (const { file, device, entry, path } of valuesOf(project, 'type'))
      if (device.kind === 'virtio' && !/^virtio,device[0-9a-f]*$/.test(entry.value))
        yield {
          file,
          place: entry.valuePlace,
          message: `type of ${path} is ${quoted(entry.value)}; expected "virtio,device<id>"`,
        };
  },
};

const domains: Rule = {
  id: 'xenstore-domain',
  severity: 'error',
  summary: 'Frontend and backend are ordinary domains, and paths and ids agree',
  why: `Ids from ${DOMID_FIRST_RESERVED} on name no domain. A frontend-id that is not that of the path makes the backend serve, or map, another guest.`,
  *check(project) {
    for (const { file, device, domain, directory, path } of backendsOf(project)) {
      const place = placeOfDirectory(directory);
      for (const id of new Set([device.frontend, domain]))
        if (id >= DOMID_FIRST_RESERVED) yield { file, place, message: `${path}: no domain has the id ${id}` };
      const written = directory.get('frontend-id');
      if (written !== undefined && written.value !== String(device.frontend))
        yield {
          file,
          place: written.valuePlace,
          message: `frontend-id of ${path} is ${quoted(written.value)}, but the path says ${device.frontend}`,
        };
      const front = directory.get('frontend');
      const expected = `/local/domain/${device.frontend}/device/${device.kind}/${device.id}`;
      if (front !== undefined && front.value !== expected)
        yield {
          file,
          place: front.valuePlace,
          message: `frontend of ${path} is ${quoted(front.value)}; expected ${expected}`,
        };
    }
  },
};

const orphan: Rule = {
  id: 'xenstore-no-backend',
  severity: 'warning',
  summary: 'A device of a frontend has a backend directory',
  why: 'The device was removed half, or the dump was made by a domain that may not see all: nobody serves the device.',
  *check({ stores }) {
    for (const { file, devices } of stores)
      for (const device of devices)
        if (device.backends.size === 0)
          yield {
            file,
            place: firstPlace(device),
            message: `${device.kind} device ${device.id} of domain ${device.frontend} has no backend directory`,
          };
  },
};

/** The rules of this file. */
export const STORE_RULES: readonly Rule[] = [keys, base, numbers, type, domains, orphan];
