// The examples of docs/vectors.md, run as they stand there by the programs of other languages.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/grantio.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const vectors = join(root, 'vectors');

/** The one example in `language`. */
function example(language: string): string {
  const page = readFileSync(join(root, 'docs', 'vectors.md'), 'utf8');
  const code = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'ms').exec(page)?.[1];
  assert.ok(code, `docs/vectors.md has no example in ${language}`);
  return code;
}

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const missing = (program: string) => (isThere(program) ? false : `${program} is not installed`);

test('the example in Python agrees with all vectors', { skip: missing('python3') }, () => {
  const { status, stdout, stderr } = spawnSync('python3', ['-c', example('python'), vectors], {
    encoding: 'utf8',
  });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.equal(stdout.match(/^ok address-codec decode-/gm)?.length, 27);
  assert.equal(stdout.match(/^ok page-counts /gm)?.length, 15);
});

test('the example in Python finds a vector that it does not agree with', {
  skip: missing('python3'),
}, (t) => {
  const folder = temporaryFolder(t);
  cpSync(vectors, folder, { recursive: true });
  const file = join(folder, 'page-counts.json');
  writeFileSync(file, readFileSync(file, 'utf8').replace('"pages":3}', '"pages":4}'));
  const { status, stderr } = spawnSync('python3', ['-c', example('python'), folder], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.match(stderr, /^page-counts two-pages-across-three: .*'pages': 3.*expected .*'pages': 4/);
});

test('the example for C makes assertions of the layouts', { skip: missing('jq') }, () => {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', example('sh')], { cwd: root, encoding: 'utf8' });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.ok(stdout.includes('_Static_assert(sizeof(struct gnttab_copy) == 40, "gnttab_copy");\n'));
  assert.ok(stdout.includes('_Static_assert(offsetof(struct gnttab_copy, dest.offset) == 26,'));
});
