// Compiles src, test, bench and museum to dist, and links the modules of each thread to one file beside it: Node takes
// longer to find, read and link seventy modules than to run what is in them, and each thread does it anew. A file deleted
// from src must not live on in dist, so dist is emptied whenever the list of sources changes; otherwise tsc's incremental
// build does the least.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

/** What threads are started with (src/hosts/linux/thread.ts). */
const THREADS = [
  'parallel/backend-thread',
  'parallel/guest-thread',
  'parallel/vhost-thread',
  'serving/control-thread',
  'serving/queue-thread',
  'serving/xen-thread',
];

const root = fileURLToPath(new URL('..', import.meta.url));

/** All files below `folder`, sorted so that the list is stable. */
function filesBelow(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

const sources = ['src', 'test', 'bench', 'museum'].flatMap((folder) => filesBelow(join(root, folder)));
const list = sources.join('\n');
const listFile = join(root, 'dist', '.sources');
if (!existsSync(listFile) || readFileSync(listFile, 'utf8') !== list) {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  mkdirSync(join(root, 'dist'), { recursive: true });
}
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const built = spawnSync(process.execPath, [tsc, '-p', root], { stdio: 'inherit' });
if (built.status !== 0) process.exit(built.status ?? 1);
buildSync({
  entryPoints: THREADS.map((path) => join(root, 'dist', 'src', `${path}.js`)),
  outdir: join(root, 'dist', 'src'),
  outbase: join(root, 'dist', 'src'),
  outExtension: { '.js': '.linked.js' },
  bundle: true,
  packages: 'external',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  logLevel: 'warning',
});
writeFileSync(listFile, list);
