// The Linux kernels that Debian packages: Debian's own for PCs, and User-Mode Linux; and which of their modules
// are to be loaded in which order for a driver. Next: initramfs.ts.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A kernel with its modules. */
export interface Kernel {
  /** The kernel itself: a bzImage for QEMU, a program for User-Mode Linux. */
  readonly image: string;
  /** The folder with modules.dep. */
  readonly modules: string;
}

/** Debian's newest stock kernel that has its modules installed, if there is one. */
export function stockKernel(): Kernel | undefined {
  const kernels = (existsSync('/boot') ? readdirSync('/boot') : [])
    .filter((name) => name.startsWith('vmlinuz-'))
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
    .map((name) => ({ image: join('/boot', name), modules: name.replace('vmlinuz-', '/lib/modules/') }));
  return kernels.find(({ modules }) => existsSync(join(modules, 'modules.dep')));
}

/** User-Mode Linux, which must be installed. */
export function umlKernel(): Kernel {
  const version = spawnSync('linux.uml', ['--version'], { encoding: 'utf8' }).stdout.trim();
  return { image: 'linux.uml', modules: join('/usr/lib/uml/modules', version) };
}

/**
 * Paths of the modules to load for `names` (as modprobe takes them), each after those that it needs. One that
 * is built into the kernel is left out.
 */
export function modulesInOrder({ modules }: Kernel, names: readonly string[]): string[] {
  const needs = new Map<string, string[]>();
  for (const line of lines(join(modules, 'modules.dep'))) {
    const [path, after] = line.split(':');
    needs.set(path!, after!.split(' ').filter(Boolean));
  }
  const paths = new Map([...needs.keys()].map((path) => [moduleName(path), path]));
  const builtIn = new Set(lines(join(modules, 'modules.builtin')).map(moduleName));
  const ordered = names.flatMap((name) => {
    const path = paths.get(name);
    if (path) return [...needs.get(path)!].reverse().concat(path);
    if (builtIn.has(name)) return [];
    throw new Error(`the kernel of ${modules} has no module ${name}`);
  });
  return [...new Set(ordered)].map((path) => join(modules, path));
}

/** The name of the module in a file, in which the kernel does not tell - from _. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko.*/, '')
    .replaceAll('-', '_');
}

function lines(path: string): string[] {
  return readFileSync(path, 'utf8').split('\n').filter(Boolean);
}
