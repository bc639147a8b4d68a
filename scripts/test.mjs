// Runs node:test over every compiled test file below the given folders (Node 20 and 24 disagree on what
// a folder or a glob after --test means, so the files are listed here).
//   node scripts/test.mjs [--coverage] [NODE_FLAG ...] FOLDER|FILE ...
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = fileURLToPath(new URL('../dist', import.meta.url));
const flags = process.argv.slice(2).filter((word) => word.startsWith('--'));
const places = process.argv.slice(2).filter((word) => !word.startsWith('--'));

function testsIn(place) {
  const path = join(dist, place.replace(/\.ts$/, '.js'));
  if (!existsSync(path)) return [];
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { recursive: true })
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => join(path, name));
}

const files = places.flatMap(testsIn).sort();
if (files.length === 0) {
  console.error(`scripts/test.mjs: no test files below ${places.join(', ')}; is dist built (npm run build)?`);
  process.exit(1);
}
const nodeFlags = flags.map((flag) => (flag === '--coverage' ? '--experimental-test-coverage' : flag));
// Of the reporters that both have, the one that lists at the end what failed.
nodeFlags.push('--enable-source-maps', '--test-reporter=spec');
// An older Node may abort when a thread ends for which it compiles (src/hosts/linux/thread.ts); tests start their own.
if (Number.parseInt(process.versions.node, 10) < 24) nodeFlags.push('--no-concurrent-recompilation');
const run = spawnSync(process.execPath, [...nodeFlags, '--test', ...files], { stdio: 'inherit' });
process.exit(run.status ?? 1);
