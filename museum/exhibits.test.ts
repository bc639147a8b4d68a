// So that the museum cannot rot unseen: each exhibit fits the code as it is now. Whether its tests catch it takes
// minutes to find out, and is for `npm run museum`.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EXHIBITS } from './exhibits.ts';
import { compileDefect, patched, StaleExhibit } from './patch.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

for (const exhibit of EXHIBITS) {
  test(`${exhibit.id} fits ${exhibit.file}, and the tests that are to catch it exist`, () => {
    const sound = readFileSync(`${root}/${exhibit.file}`, 'utf8');
    assert.notEqual(patched(exhibit, sound), sound);
    compileDefect(exhibit, root);
    for (const file of exhibit.tests) assert.ok(existsSync(`${root}/${file}`), file);
  });
}

test('every exhibit has an id of its own', () => {
  const ids = EXHIBITS.map(({ id }) => id);
  assert.deepEqual([...new Set(ids)], ids);
});

test('a file is compiled as the build does it', () => {
  const [exhibit] = EXHIBITS;
  const same = { ...exhibit, replace: exhibit.find };
  const built = readFileSync(`${root}/dist/${exhibit.file.replace(/\.ts$/, '.js')}`, 'utf8');
  assert.equal(compileDefect(same, root), built.replace(/\/\/# sourceMappingURL=.*/, ''));
});

test('a text that is missing, that is there twice, and what does not compile are refused', () => {
  const [exhibit] = EXHIBITS;
  const fits = { ...exhibit, find: 'b', replace: 'x' };
  assert.equal(patched(fits, 'a b c'), 'a x c');
  assert.throws(() => patched(fits, 'a c'), /not there/);
  assert.throws(() => patched(fits, 'b and b'), /2 times/);
  assert.throws(() => compileDefect({ ...exhibit, replace: '}' }, root), StaleExhibit);
  assert.throws(() => compileDefect({ ...exhibit, file: 'src/gone.ts' }, root), /no such file/);
});
