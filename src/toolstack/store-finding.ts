// What xenstore says of who serves a virtio device, from keys that only the toolstack, or the guest itself, can
// have written. What lies in the backend's directory belongs to the backend, which may rewrite it at any time:
// nothing of it is asked here (case X16). After virtio-nodes.ts, before dma/policy.ts.

import { XS_PERMISSION_ANY_DOMAIN } from '../abi/xenstore.ts';
import type { Finding } from '../dma/policy.ts';
import { type NodePermission, type Xenstore, XenstoreError, type XenstoreNodes } from '../xen/xenstore.ts';
import { frontendPath, grantPath, NO_GRANTS, type VirtioKind } from './virtio-nodes.ts';

/** A key: its value, that it is not there, or why its value does not count. */
type Key = { readonly value: string | undefined } | { readonly fault: string };

/**
 * Looks at both keys at one moment: the toolstack's own, `grant-dma`, which libxl does not write, and the
 * `backend-id` of the guest's directory, which says who serves the device but not whether grants are used.
 */
export function storeFinding(
  store: Xenstore,
  device: { readonly guest: number; readonly kind: VirtioKind; readonly devid: number },
): Promise<Finding> {
  return store.transaction(async (nodes) => {
    const own = `${frontendPath(device)}/backend-id`;
    const [granted, served] = [
      await readTrusted(nodes, grantPath(device), device.guest),
      await readTrusted(nodes, own, device.guest),
    ];
    if ('fault' in granted) return { kind: 'fault', says: granted.fault };
    if ('fault' in served) return { kind: 'fault', says: served.fault };
    return compare(granted.value, served.value, grantPath(device), own);
  });
}

function compare(
  granted: string | undefined,
  served: string | undefined,
  grantKey: string,
  ownKey: string,
): Finding {
  for (const [key, value] of [
    [grantKey, granted === NO_GRANTS ? undefined : granted],
    [ownKey, served],
  ] as const)
    if (value !== undefined && !/^[0-9]{1,10}$/.test(value))
      return { kind: 'fault', says: `${key} is ${JSON.stringify(value)}, which is no domain id` };
  if (granted === NO_GRANTS)
    return { kind: 'no grants', says: `${grantKey} is "${NO_GRANTS}", so the device is to use no grants` };
  if (granted !== undefined && served !== undefined && Number(granted) !== Number(served))
    return { kind: 'fault', says: `${grantKey} is ${granted}, and ${ownKey} is ${served}` };
  const domain = granted ?? served;
  if (domain === undefined) return { kind: 'nothing', says: `has neither ${grantKey} nor ${ownKey}` };
  return {
    kind: 'backend',
    domain: Number(domain),
    says: `${granted === undefined ? ownKey : grantKey} names domain ${domain}`,
  };
}

async function readTrusted(nodes: XenstoreNodes, path: string, guest: number): Promise<Key> {
  try {
    const value = await nodes.read(path);
    const writer = strangerThatWrites(await nodes.permissions(path), guest);
    return writer === undefined ? { value } : { fault: `${path} can be changed by ${writer}` };
  } catch (error) {
    if (!(error instanceof XenstoreError)) throw error;
    if (error.code === 'ENOENT') return { value: undefined };
    if (error.code === 'EACCES') return { fault: `${path} may not be read by the guest` };
    throw error;
  }
}

/** Whoever may write a node besides the toolstack and the guest; undefined if nobody may. */
function strangerThatWrites(permissions: readonly NodePermission[], guest: number): string | undefined {
  for (const [index, { domain, access }] of permissions.entries()) {
    const writes = access === 'w' || access === 'b';
    // The first entry's domain is the owner, who may do anything; its letter is for everybody else.
    if (index === 0 && writes) return 'any domain';
    if ((index > 0 && !writes) || domain === 0 || domain === guest) continue;
    return domain === XS_PERMISSION_ANY_DOMAIN ? 'any domain' : `domain ${domain}`;
  }
  return permissions.length === 0 ? 'unknown domains' : undefined;
}
