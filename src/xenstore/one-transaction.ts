// The port with one transaction at a time: a domain may have few open at once, and whoever opens one more is refused.
// Used by machine/guest-devices.ts and machine/backend-service.ts, whose devices all want one when they all change.

import type { Xenstore } from '../xen/xenstore.ts';

/** The same store, whose transactions begin when those before them have ended. */
export function oneTransaction(store: Xenstore): Xenstore {
  let last: Promise<unknown> = Promise.resolve();
  return {
    read: (path) => store.read(path),
    write: (path, value) => store.write(path, value),
    directory: (path) => store.directory(path),
    remove: (path) => store.remove(path),
    permissions: (path) => store.permissions(path),
    setPermissions: (path, permissions) => store.setPermissions(path, permissions),
    watch: (path, changed) => store.watch(path, changed),
    transaction(body) {
      const result = last.then(() => store.transaction(body));
      last = result.catch(() => undefined);
      return result;
    },
  };
}
