import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nbdUri, parseNbdAddress } from './address.ts';

test('an address is a socket path or HOST:PORT', () => {
  assert.deepEqual(parseNbdAddress('/run/nbd.sock'), { path: '/run/nbd.sock' });
  assert.deepEqual(parseNbdAddress('nbd.sock'), { path: 'nbd.sock' });
  assert.deepEqual(parseNbdAddress('./a:1'), { path: './a:1' });
  assert.deepEqual(parseNbdAddress('localhost:10809'), { host: 'localhost', port: 10809 });
  assert.deepEqual(parseNbdAddress('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(parseNbdAddress('[::1]:65535'), { host: '::1', port: 65535 });
});

for (const [text, message] of [
  ['', /socket path: empty/],
  [':10809', /expected HOST:PORT .* or a socket's path/],
  ['host:', /expected HOST:PORT/],
  ['host:http', /expected HOST:PORT/],
  ['::1:10809', /expected HOST:PORT such as 127.0.0.1:10809 or \[::1\]:10809/],
  ['host:65536', /port 65536, expected 0 to 65535/],
  ['a\0b', /NUL/],
] as const)
  test(`address ${JSON.stringify(text)} is refused with what to write instead`, () => {
    assert.throws(() => parseNbdAddress(text), { name: 'RangeError', message });
  });

test('O2: a socket path over 107 bytes is refused, in bytes and not in characters', () => {
  assert.deepEqual(parseNbdAddress(`/${'a'.repeat(106)}`), { path: `/${'a'.repeat(106)}` });
  assert.throws(() => parseNbdAddress(`/${'a'.repeat(107)}`), /108 bytes, expected at most 107/);
  assert.throws(() => parseNbdAddress(`/${'ü'.repeat(54)}`), /109 bytes, expected at most 107/);
});

test('a URI names the export and quotes what a URI must quote', () => {
  assert.equal(nbdUri({ path: '/run/a b.sock' }, 'x'), 'nbd+unix:///x?socket=/run/a%20b.sock');
  assert.equal(nbdUri({ path: 'a&b' }, ''), 'nbd+unix:///?socket=a%26b');
  assert.equal(nbdUri({ host: 'localhost', port: 10809 }, 'a/b ü'), 'nbd://localhost:10809/a%2Fb%20%C3%BC');
  assert.equal(nbdUri({ host: '::1', port: 1 }, 'x'), 'nbd://[::1]:1/x');
});
