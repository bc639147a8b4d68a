import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backendOfDevice, storeDevices } from './store-devices.ts';
import { mayWrite, readXenstoreDump } from './xenstore-dump.ts';

test('paths, values and permissions are read as xenstore-ls -f prints them', () => {
  const { entries, findings } = readXenstoreDump(
    `/tool = ""
/tool/xenstored:

/local/domain/1/name = "a\\x1bb\\n\\\\\\007"   (n0,r1)
/local/domain/1/data = "x"  (n0)" . . . . .  (n1)
`,
    'f',
  );
  assert.deepEqual(findings, []);
  assert.deepEqual(
    [...entries.keys()],
    ['/tool', '/tool/xenstored', '/local/domain/1/name', '/local/domain/1/data'],
  );
  const name = entries.get('/local/domain/1/name')!;
  assert.equal(name.value, 'a\u001bb\n\\\u0007');
  assert.deepEqual([name.line, name.column, name.valuePlace.column], [4, 1, 25]);
  assert.deepEqual(name.permissions, { owner: 0, others: 'none', domains: new Map([[1, 'read']]) });
  assert.equal(entries.get('/local/domain/1/data')!.value, 'x"  (n0)');
  assert.equal(entries.get('/local/domain/1/data')!.permissions!.owner, 1);
});

test('who may write a node: its owner, domain 0, and whom the permissions name', () => {
  const permissions = readXenstoreDump('/a = "" (n1,r2,w3,b4)\n/b = "" (w1,n2)\n', 'f').entries;
  const writers = (path: string) =>
    [0, 1, 2, 3, 4, 5].filter((domain) => mayWrite(permissions.get(path)!.permissions!, domain));
  assert.deepEqual(writers('/a'), [0, 1, 3, 4]);
  assert.deepEqual(writers('/b'), [0, 1, 3, 4, 5]);
});

test('what is no dump, not whole or not with -f is reported', () => {
  const findingsOf = (text: string) =>
    readXenstoreDump(text, 'f').findings.map(({ line, message, help }) => [line, message, help]);
  assert.deepEqual(findingsOf('name = "x"\n'), [
    [1, '`name = "x"` is no line of `xenstore-ls -f`', 'print whole paths, with xenstore-ls -f'],
  ]);
  assert.deepEqual(findingsOf('/a = "x\n'), [[1, '`/a = "x` is no line of `xenstore-ls -f`', undefined]]);
  assert.deepEqual(findingsOf('/a = "xxx\\..."\n'), [
    [1, 'the value of `/a` is cut off', 'print wide lines, with xenstore-ls -f -w'],
  ]);
  assert.deepEqual(findingsOf('/a = "x"\n/a = "y"\n'), [[2, 'the node `/a` is there twice', undefined]]);
  assert.equal(findingsOf('?\n'.repeat(1000)).length, 100);
});

test('X16: the backend of a device is whom the toolstack names, never whom the frontend names', () => {
  const backendOf = (...lines: string[]) => {
    const { entries } = readXenstoreDump(lines.join('\n'), 'f');
    const devices = storeDevices(entries);
    assert.equal(devices.length, 1);
    return backendOfDevice(devices[0]!);
  };
  const libxl = '/libxl/5/device/virtio/0/backend = "/local/domain/2/backend/virtio/5/0"';
  const front = '/local/domain/5/device/virtio/0/backend = "/local/domain/7/backend/virtio/5/0"';
  const back = (domain: number) => `/local/domain/${domain}/backend/virtio/5/0/state = "1"`;
  assert.equal(backendOf(front, back(3), libxl), 2);
  assert.equal(backendOf(front, back(3)), 3);
  assert.equal(backendOf(back(3), back(4)), undefined);
  assert.equal(backendOf(front), undefined);
});
