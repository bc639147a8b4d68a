#!/usr/bin/env bash
# Checks that what `npm publish` would upload runs: packs it, installs the tarball into a folder of its own
# with the locked versions of its dependencies (from npm's cache where they are there), and runs it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/grantio-package-XXXXXX")
trap 'rm -rf "$folder"' EXIT

cd "$root"
npm pack --silent --pack-destination "$folder" >/dev/null
mv "$folder"/grantio-*.tgz "$folder/grantio.tgz"
echo "check-package: $(tar -tzf "$folder/grantio.tgz" | wc -l) files in the package"
if tar -tzf "$folder/grantio.tgz" | grep -E '\.test\.|^package/(src|test|bench|scripts)/'; then
  echo "check-package: these files do not belong into the package" >&2
  exit 1
fi

node scripts/lock-package.mjs "$folder"
cd "$folder"
npm ci --prefer-offline --no-audit --no-fund --loglevel=error

version=$(node_modules/.bin/grantio --version)
expected=$(node -p 'require(process.argv[1]).version' "$root/package.json")
if [[ "$version" != "$expected" ]]; then
  echo "check-package: grantio --version says \`$version\`; expected $expected" >&2
  exit 1
fi

node --input-type=module -e '
  import { readFileSync } from "node:fs";
  import { vectors } from "grantio/vectors";
  for (const { group, vectors: cases } of Object.values(vectors)) {
    const file = new URL(import.meta.resolve(`grantio/vectors/${group}.json`));
    const { length } = JSON.parse(readFileSync(file, "utf8")).vectors;
    if (length !== cases.length || length === 0) throw new Error(`${group}: ${length} vectors`);
  }
'
truncate -s 1M disk.img
node_modules/.bin/grantio run --json --disk disk.img >report.json
node "$root/scripts/check-report.mjs" report.json
echo "check-package: the installed grantio $version copies a disk in every mode"
