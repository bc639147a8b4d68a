import assert from 'node:assert/strict';
import { test } from 'node:test';
import { childOf, depthOf, nameOf, parentOf, resolvePath } from './paths.ts';

const home = '/local/domain/7';

test('paths: absolute ones stay, relative ones start at home, special names stay', () => {
  assert.equal(resolvePath('/', home), '/');
  assert.equal(resolvePath('/a-b/c_d/9@', home), '/a-b/c_d/9@');
  assert.equal(resolvePath('device/vbd/51712', home), '/local/domain/7/device/vbd/51712');
  assert.equal(resolvePath('@releaseDomain/7', home), '@releaseDomain/7');
});

test('paths: characters beyond alphanumerics and -/_@, double and trailing slashes are refused', () => {
  for (const path of ['', '//', '/a//b', '/a/', 'a/', 'a b', 'a.b', 'a\0', 'ä', '/a:b', 'a\n'])
    assert.equal(resolvePath(path, home), undefined, JSON.stringify(path));
});

test('paths: 3072 bytes absolute and 2048 relative are the most', () => {
  assert.equal(resolvePath(`/${'a'.repeat(3071)}`, home)?.length, 3072);
  assert.equal(resolvePath(`/${'a'.repeat(3072)}`, home), undefined);
  assert.equal(resolvePath('a'.repeat(2048), home), `${home}/${'a'.repeat(2048)}`);
  assert.equal(resolvePath('a'.repeat(2049), home), undefined);
});

test('paths: parents, names, children and depths', () => {
  assert.deepEqual(['/a/b', '/a', '/', '@x'].map(parentOf), ['/a', '/', '/', '/']);
  assert.deepEqual(['/a/b', '/a'].map(nameOf), ['b', 'a']);
  assert.deepEqual([childOf('/', 'a'), childOf('/a', 'b')], ['/a', '/a/b']);
  assert.deepEqual(['/', '/a', '/a/b', '@x'].map(depthOf), [0, 1, 2, 1]);
});
