// Debian packages of the release that runs here, fetched and unpacked without being installed.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Steps } from './steps.ts';

/** Packages by name. */
export interface PackageSet {
  readonly names: readonly string[];
  /** Whether all that they depend on belongs to it. */
  readonly withDependencies: boolean;
}

/** Names, sizes and checksums of the files of a set, as apt knows them: another version is another text. */
export function packageFiles(set: PackageSet): string {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-apt-'));
  try {
    const { status, stdout, stderr } = spawnSync('apt-get', aptWords(set, folder, '--print-uris'), {
      cwd: folder,
      encoding: 'utf8',
    });
    const files = stdout.split('\n').flatMap((line) => /^'\S+' (\S+ \d+ \S*)/.exec(line)?.[1] ?? []);
    if (status === 0 && files.length > 0) return files.sort().join('\n');
    throw new Error(
      `apt-get cannot tell where ${set.names.join(', ')} are to be had: ${stderr}` +
        'They are packages of Debian 12 for amd64; `npm run xen:install` brings the package lists up to date.',
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Fetches the set and unpacks it below `root`. */
export async function unpackPackages(steps: Steps, set: PackageSet, root: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-apt-'));
  try {
    await steps.step(`fetch ${set.names.join(', ')}`, () =>
      steps.run('apt-get', aptWords(set, folder), { folder }),
    );
    const packages = readdirSync(folder).filter((name) => name.endsWith('.deb'));
    await steps.step(`unpack ${packages.length} packages`, async () => {
      mkdirSync(root, { recursive: true });
      for (const name of packages) await steps.run('dpkg', ['-x', join(folder, name), root]);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** How apt-get fetches into `folder`. For all that a package depends on it looks as if nothing were installed. */
function aptWords({ names, withDependencies }: PackageSet, folder: string, ...more: string[]): string[] {
  if (!withDependencies) return ['download', ...more, ...names];
  const status = join(folder, 'status');
  writeFileSync(status, '');
  mkdirSync(join(folder, 'partial'));
  const options = [
    `Dir::State::status=${status}`,
    `Dir::State::extended_states=${join(folder, 'extended_states')}`,
    `Dir::Cache::archives=${folder}`,
    'Debug::NoLocking=true',
  ];
  const words = options.flatMap((option) => ['-o', option]);
  return [...words, 'install', '--download-only', '--yes', '--no-install-recommends', ...more, ...names];
}
