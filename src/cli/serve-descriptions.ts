// `grantio serve install-descriptions`: JSON files by which libvirt and others find backend programs (QEMU's
// docs/interop/vhost-user.json, VhostUserBackend). After serve.ts.

import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { SERVED_KINDS } from './serve-kinds.ts';

/** Programs that are started without a sub-command. */
const LIBEXEC = fileURLToPath(new URL('../../../libexec', import.meta.url));
/** Tells our files from others of the same name. */
const TAG = 'grantio';

interface PlaceOptions {
  readonly prefix?: string;
}

/** Adds the commands to `grantio serve`. */
export function addDescriptionCommands(serve: Command): void {
  const place = [
    '--prefix <dir>',
    "below DIR/share (default: root's in /etc, others' in their own configuration)",
  ];
  serve
    .command('install-descriptions')
    .summary('let libvirt and others find the backend programs')
    .description('Write the JSON files in which management programs look for vhost-user backends.')
    .option(place[0], place[1])
    .action((options: PlaceOptions) =>
      installDescriptions(folderOf(options), (line) => process.stdout.write(line)),
    );
  serve
    .command('uninstall-descriptions')
    .summary('remove what install-descriptions wrote')
    .description('Remove the JSON files that install-descriptions wrote.')
    .option(place[0], place[1])
    .action((options: PlaceOptions) =>
      uninstallDescriptions(folderOf(options), (line) => process.stdout.write(line)),
    );
}

/** Writes a file for each kind; who looks meanwhile finds the whole file or the one before. */
function installDescriptions(folder: string, say: (line: string) => void): void {
  mkdirSync(folder, { recursive: true });
  for (const { file, text } of descriptions()) {
    const path = join(folder, file);
    const temporary = `${path}.${process.pid}`;
    try {
      writeFileSync(temporary, text);
      renameSync(temporary, path);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    say(`${path}\n`);
  }
}

/** Removes our files; one that hides ours (it is empty) or that somebody has replaced is left alone. */
function uninstallDescriptions(folder: string, say: (line: string) => void): void {
  for (const { file } of descriptions()) {
    const path = join(folder, file);
    if (!isOurs(path)) continue;
    rmSync(path);
    say(`${path}\n`);
  }
}

function descriptions(): { readonly file: string; readonly text: string }[] {
  return Object.entries(SERVED_KINDS).map(([kind, { summary, capabilities }]) => {
    const description = {
      description: `grantio: ${summary} over vhost-user`,
      type: capabilities.type,
      binary: join(LIBEXEC, `vhost-user-${kind}`),
      tags: [TAG],
    };
    return { file: `50-grantio-${kind}.json`, text: `${JSON.stringify(description, null, 2)}\n` };
  });
}

/** Where management programs look: what the system has, what its administrator adds, what a user adds. */
function folderOf({ prefix }: PlaceOptions): string {
  const configuration = process.env['XDG_CONFIG_HOME'] || join(homedir(), '.config');
  const base =
    prefix === undefined ? (process.getuid?.() === 0 ? '/etc' : configuration) : join(prefix, 'share');
  return resolve(base, 'qemu', 'vhost-user');
}

function isOurs(path: string): boolean {
  try {
    const found: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return found !== null && typeof found === 'object' && 'tags' in found && hasTag(found.tags);
  } catch {
    // Not there, not readable, no JSON: not what we wrote.
    return false;
  }
}

function hasTag(tags: unknown): boolean {
  return Array.isArray(tags) && tags.includes(TAG);
}
