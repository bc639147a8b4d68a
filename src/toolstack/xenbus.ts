// States of a device's two ends in xenstore: reading them, moving from one to the next, and waiting for one
// (public/io/xenbus.h). Used by hot-plug.ts, and by both ends in machine/.

import { type Xenstore, XenstoreError, type XenstoreNodes } from '../xen/xenstore.ts';
import { XENBUS_CLOSED, XENBUS_UNKNOWN } from './virtio-nodes.ts';

/** The state that the directory `path` is in; undefined where there is none, or none that may be read. */
export async function stateAt(store: XenstoreNodes, path: string): Promise<number | undefined> {
  const text = await valueAt(store, `${path}/state`);
  if (text === undefined) return undefined;
  return /^[0-9]$/.test(text) && Number(text) <= XENBUS_CLOSED ? Number(text) : XENBUS_UNKNOWN;
}

/** The value of a node; undefined where there is none, or none that may be read. */
export async function valueAt(store: XenstoreNodes, path: string): Promise<string | undefined> {
  try {
    return await store.read(path);
  } catch (error) {
    if (error instanceof XenstoreError && (error.code === 'ENOENT' || error.code === 'EACCES'))
      return undefined;
    throw error;
  }
}

/**
 * Moves the directory `path` from one state to the next, and writes `values` along with it. Both or neither: whoever
 * sees the state sees the values, and a device that was withdrawn meanwhile is not written into being again.
 *
 * @param still looked at when nobody can change the nodes any more
 * @returns false when it is not in the state `from`, or not `still` so, and then nothing was written
 */
export function changeState(
  store: Xenstore,
  path: string,
  from: number,
  to: number,
  values: Readonly<Record<string, string>> = {},
  still: (nodes: XenstoreNodes) => Promise<boolean> = async () => true,
): Promise<boolean> {
  return store.transaction(async (nodes) => {
    if ((await stateAt(nodes, path)) !== from || !(await still(nodes))) return false;
    for (const [name, value] of Object.entries(values)) await nodes.write(`${path}/${name}`, value);
    await nodes.write(`${path}/state`, `${to}`);
    return true;
  });
}

/**
 * Calls `look` now and after each change at or below `paths`, until it returns something. Rejects with what `look`
 * throws, and with the reason of `signal` when that comes first.
 */
export async function lookUntil<T>(
  store: Xenstore,
  paths: readonly string[],
  look: () => Promise<T | undefined>,
  signal?: AbortSignal,
): Promise<T> {
  let due = false;
  let wake: () => void = () => undefined;
  const changed = () => {
    due = true;
    wake();
  };
  const unwatch: (() => Promise<void>)[] = [];
  signal?.addEventListener('abort', changed);
  try {
    for (const path of paths) unwatch.push(await store.watch(path, changed));
    for (;;) {
      due = false;
      const found = await look();
      if (found !== undefined) return found;
      signal?.throwIfAborted();
      if (!due)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    signal?.removeEventListener('abort', changed);
    for (const end of unwatch) await end();
  }
}
