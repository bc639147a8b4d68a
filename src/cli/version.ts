// The version of the package, from its manifest.

import { readFileSync } from 'node:fs';

/** As in package.json. */
export function version(): string {
  const manifest: unknown = JSON.parse(
    readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
  );
  return manifest !== null && typeof manifest === 'object' && 'version' in manifest
    ? `${manifest.version}`
    : '?';
}
