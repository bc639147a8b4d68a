// Whom to believe in Xenstore: a frontend may write its own directory, a driver domain its own, and no guest
// the toolstack's copy below /libxl (XSA-175, XSA-178).

import { quoted } from '../../toolstack/finding.ts';
import type { StoreDevice } from '../../toolstack/store-devices.ts';
import { mayWrite } from '../../toolstack/xenstore-dump.ts';
import { firstPlace } from '../devices.ts';
import type { Project } from '../project.ts';
import type { Rule } from '../rule.ts';

/** Each device of each dump. */
function* devicesIn({ stores }: Project): Generator<{ file: string; device: StoreDevice; name: string }> {
  for (const { file, devices } of stores)
    for (const device of devices)
      yield { file, device, name: `${device.kind} device ${device.id} of domain ${device.frontend}` };
}

/** What only the toolstack decides. */
const TOOLSTACK_KEYS = ['base', 'irq', 'type', 'transport', 'grant_usage', 'params', 'mode', 'specification'];

const frontendKeys: Rule = {
  id: 'xenstore-frontend-keys',
  severity: 'warning',
  summary: "The frontend's directory says nothing of what the toolstack decides",
  why: 'The guest owns its directory. A backend that reads base, irq or grant_usage there lets the guest choose them, and so turn grants off or point at another device.',
  *check(project) {
    for (const { file, device, name } of devicesIn(project))
      for (const key of TOOLSTACK_KEYS) {
        const entry = device.front.get(key);
        if (entry !== undefined)
          yield {
            file,
            place: entry,
            message: `the directory of the frontend of ${name} has ${key}`,
            help: `read ${key} from the backend's directory or below /libxl`,
          };
      }
  },
};

const frontendBackend: Rule = {
  id: 'xenstore-frontend-backend',
  severity: 'error',
  summary: "backend and backend-id in the frontend's directory are what the toolstack wrote",
  why: "The guest can write both. A toolstack that follows them cleans up, or reads, in another domain's directory (XSA-175); the copy below /libxl is the one to follow.",
  *check(project) {
    for (const { file, device, name } of devicesIn(project)) {
      const copy = device.libxl.get('backend')?.value;
      const path = device.front.get('backend');
      if (copy !== undefined && path !== undefined && path.value !== copy)
        yield {
          file,
          place: path.valuePlace,
          message: `backend of the frontend of ${name} is ${quoted(path.value)}; the toolstack wrote ${copy}`,
        };
      const wanted = copy === undefined ? undefined : /^\/local\/domain\/([0-9]+)\//.exec(copy)?.[1];
      const id = device.front.get('backend-id');
      if (wanted !== undefined && id !== undefined && id.value !== wanted)
        yield {
          file,
          place: id.valuePlace,
          message: `backend-id of the frontend of ${name} is ${quoted(id.value)}; the toolstack chose ${wanted}`,
        };
    }
  },
};

const copies: Rule = {
  id: 'xenstore-copy-differs',
  severity: 'error',
  summary: "The backend's directory says what the toolstack wrote",
  why: 'A driver domain owns its directory and can change it. Where it differs from the copy below /libxl, the copy is right and the driver domain is broken or lies.',
  *check(project) {
    for (const { file, device, name } of devicesIn(project))
      for (const directory of device.backends.values())
        for (const key of TOOLSTACK_KEYS) {
          const entry = directory.get(key);
          const copy = device.libxl.get(key);
          if (entry !== undefined && copy !== undefined && entry.value !== copy.value)
            yield {
              file,
              place: entry.valuePlace,
              message: `${key} of ${name} is ${quoted(entry.value)}; the toolstack wrote ${quoted(copy.value)}`,
            };
        }
  },
};

const forged: Rule = {
  id: 'xenstore-two-backends',
  severity: 'error',
  summary: 'A device has one backend directory, where the toolstack says',
  why: "Any domain can make a backend directory below its own path and put a guest's number into it. Only the one that /libxl names was made by the toolstack.",
  *check(project) {
    for (const { file, device, name } of devicesIn(project)) {
      const wanted = /^\/local\/domain\/([0-9]+)\//.exec(device.libxl.get('backend')?.value ?? '')?.[1];
      if (wanted === undefined && device.backends.size > 1)
        yield {
          file,
          place: firstPlace(device),
          message: `${name} has backend directories of domains ${[...device.backends.keys()].join(', ')}`,
        };
      for (const [domain, directory] of device.backends)
        if (wanted !== undefined && String(domain) !== wanted)
          for (const { line, column } of [...directory.values()].slice(0, 1))
            yield {
              file,
              place: { line, column },
              message: `domain ${domain} has a backend directory for ${name}; the toolstack chose domain ${wanted}`,
            };
    }
  },
};

/** The guest that a device is for, in the paths that it has no business to write. */
const GUEST_OF_PATH =
  /^\/(?:local\/domain\/[0-9]+\/backend\/virtio(?:_disk)?|libxl)\/([0-9]+)\/(?:[0-9]+\/|device\/virtio(?:_disk)?\/)/;

const permissions: Rule = {
  id: 'xenstore-permissions',
  severity: 'error',
  summary: "A guest writes neither the backend's directory nor the toolstack's copy",
  why: "The frontend's directory belongs to the frontend, the backend's to the backend, and /libxl to the toolstack. A guest that can write beyond its own decides what backend and toolstack believe.",
  *check({ stores }) {
    for (const { file, entries } of stores)
      for (const [path, entry] of entries) {
        const guest = GUEST_OF_PATH.exec(path)?.[1];
        if (guest === undefined || entry.permissions === undefined) continue;
        if (mayWrite(entry.permissions, Number(guest)))
          yield { file, place: entry, message: `domain ${guest} may write ${path}` };
      }
  },
};

/** The rules of this file. */
export const TRUST_RULES: readonly Rule[] = [frontendKeys, frontendBackend, copies, forged, permissions];
