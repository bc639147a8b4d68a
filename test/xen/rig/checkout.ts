// Where the rig finds what is not compiled: scripts, configurations, the packages that grantio needs.

import { realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The path of something in the checkout; the compiled rig is in dist/test/xen/rig. */
export function checkout(path: string): string {
  return realpathSync(fileURLToPath(new URL(`../../../../${path}`, import.meta.url)));
}
