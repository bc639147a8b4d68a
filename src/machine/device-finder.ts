// How a guest finds a device that the toolstack gave it: where its registers are, which domain serves it, and
// whether that domain gets grants. All of it comes from the toolstack or the guest's own configuration, never from
// the device. After toolstack/, before guest-domain.ts; what is decided, and why, is dma/policy.ts's.

import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import {
  type Decision,
  decideAccess,
  type Finding,
  type Findings,
  type GrantPolicy,
  type GuestFacts,
} from '../dma/policy.ts';
import { mmioFinding } from '../toolstack/device-tree/device-finding.ts';
import type { DeviceTree } from '../toolstack/device-tree/tree.ts';
import { storeFinding } from '../toolstack/store-finding.ts';
import {
  backendPath,
  frontendPath,
  readDevice,
  type VirtioKind,
  type VirtioNodes,
  XENBUS_CLOSED,
  XENBUS_CLOSING,
  XENBUS_INIT_WAIT,
} from '../toolstack/virtio-nodes.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { domainId } from '../xen/ids.ts';
import { type Xenstore, XenstoreError } from '../xen/xenstore.ts';
import type { DevicePlace } from './guest-domain.ts';

/** What a guest knows when it looks for its devices. */
export interface GuestView {
  readonly facts: GuestFacts;
  /** What Xen handed it at boot; guests on x86 have none. */
  readonly tree?: DeviceTree | undefined;
}

/** A device that the guest wants, and what its own configuration says of it. */
export interface WantedDevice {
  readonly kind: VirtioKind;
  readonly devid: number;
  /** Undefined leaves it to the guest's policy for all devices. */
  readonly policy?: GrantPolicy | undefined;
  /** Id of the domain that serves it. The other sources must say the same. */
  readonly backend?: number | undefined;
}

/**
 * Waits until the backend is ready to serve the device, and says where it is.
 *
 * @param explain told what was decided about the device's access to memory, and why, before anything is done
 * @throws DeviceRefused when the decision is against it, or the backend cannot serve it, with the reason
 */
export async function findDevice(
  store: Xenstore,
  guest: GuestView,
  device: WantedDevice,
  explain: (decision: Decision) => void = () => undefined,
): Promise<Omit<DevicePlace, 'device'>> {
  const place = { kind: device.kind, devid: device.devid, guest: guest.facts.id };
  const nodes = await announcedNodes(store, place);
  const findings: Findings = {
    ...(nodes && { 'device tree': treeFinding(guest, nodes.base) }),
    xenstore: await storeFinding(store, place),
    ...(device.backend !== undefined && { configuration: configured(device.backend) }),
  };
  const decision = decideAccess(guest.facts, device.policy, findings);
  explain(decision);
  if (decision.access === 'refused')
    throw new DeviceRefused(`${device.kind} device ${device.devid} is refused: ${decision.reason}`);
  if (nodes === undefined)
    throw new DeviceRefused('the toolstack has not given the device, or taken it away');
  const { base, backend } = nodes;
  await backendReady(store, backendPath(nodes));
  return { base, backend, access: decision.access };
}

/** What the toolstack has announced to the domain that it named as the backend; undefined when there is nothing. */
async function announcedNodes(
  store: Xenstore,
  { kind, guest, devid }: Pick<VirtioNodes, 'kind' | 'guest' | 'devid'>,
): Promise<VirtioNodes | undefined> {
  try {
    const backend = Number(await store.read(`${frontendPath({ kind, guest, devid })}/backend-id`));
    const isOrdinary = Number.isInteger(backend) && backend >= 0 && backend < DOMID_FIRST_RESERVED;
    return isOrdinary ? await readDevice(store, kind, domainId(backend), guest, devid) : undefined;
  } catch (error) {
    // The guest may not read what other domains than its backend were told.
    if (error instanceof XenstoreError && (error.code === 'ENOENT' || error.code === 'EACCES'))
      return undefined;
    throw error;
  }
}

function treeFinding({ tree }: GuestView, base: number): Finding {
  return tree === undefined
    ? { kind: 'nothing', says: 'was not handed to the guest' }
    : mmioFinding(tree, base);
}

function configured(domain: number): Finding {
  return { kind: 'backend', domain, says: `names domain ${domain}` };
}

/** Resolves when the backend waits for the guest, rejects with its reason when it has given up. */
async function backendReady(store: Xenstore, path: string): Promise<void> {
  let resolve: (state: number) => void = () => undefined;
  let reject: (reason: unknown) => void = () => undefined;
  const promise = new Promise<number>((...ends) => {
    [resolve, reject] = ends;
  });
  const look = async () => {
    const found = Number(await store.read(`${path}/state`));
    if (found === XENBUS_INIT_WAIT || found === XENBUS_CLOSING || found === XENBUS_CLOSED) resolve(found);
  };
  const unwatch = await store.watch(`${path}/state`, () => void look().catch(reject));
  try {
    if ((await promise) !== XENBUS_INIT_WAIT) throw new DeviceRefused(await reasonAt(store, path));
  } finally {
    await unwatch();
  }
}

async function reasonAt(store: Xenstore, path: string): Promise<string> {
  try {
    return await store.read(`${path}/error`);
  } catch (error) {
    if (error instanceof XenstoreError) return `the backend does not serve the device (${path})`;
    throw error;
  }
}
