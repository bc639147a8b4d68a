// Writes package.json and package-lock.json for a project whose one dependency is the packed grantio.tgz
// beside them, with everything that grantio needs at the versions of this repository's own lock: npm ci
// then takes all of it from npm's cache and resolves nothing. Before it: check-package.sh.
//   node scripts/lock-package.mjs FOLDER
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.argv[2];
const { packages } = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'));
const { version, license, bin, dependencies, optionalDependencies, engines } = packages[''];
const needed = Object.entries(packages).filter(([path, { dev }]) => path !== '' && !dev);

const project = {
  name: 'grantio-check-package',
  private: true,
  dependencies: { grantio: 'file:grantio.tgz' },
};
const grantio = {
  version,
  resolved: 'file:grantio.tgz',
  license,
  bin,
  dependencies,
  optionalDependencies,
  engines,
};
const lock = {
  name: project.name,
  lockfileVersion: 3,
  requires: true,
  packages: { '': project, 'node_modules/grantio': grantio, ...Object.fromEntries(needed) },
};
writeFileSync(join(folder, 'package.json'), JSON.stringify(project));
writeFileSync(join(folder, 'package-lock.json'), JSON.stringify(lock));
