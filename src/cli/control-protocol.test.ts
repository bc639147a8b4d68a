import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LineReader, MAX_LINE, parseRequest } from './control-protocol.ts';

test('requests are read, with their defaults', () => {
  assert.deepEqual(parseRequest('{"plug":{"path":"b.img"}}'), { plug: { path: 'b.img', readOnly: false } });
  assert.deepEqual(parseRequest('{"plug":{"path":"b.img","readOnly":true}}'), {
    plug: { path: 'b.img', readOnly: true },
  });
  assert.deepEqual(parseRequest('{"plug":"entropy"}'), { plug: 'entropy' });
  assert.deepEqual(parseRequest('{"unplug":"xvdb"}'), { unplug: 'xvdb' });
  assert.deepEqual(parseRequest('{"list":true}'), { list: true });
});

for (const [line, message] of [
  ['', /no JSON/],
  ['[1]', /no object/],
  ['null', /no object/],
  ['{}', /says one thing, this one 0/],
  ['{"list":true,"unplug":"xvda"}', /says one thing, this one 2/],
  ['{"plugg":1}', /unknown key "plugg"; known are plug, unplug, list/],
  ['{"plug":{"path":"a","ro":true}}', /plug has an unknown key "ro"; known are path, readOnly/],
  ['{"plug":{"path":""}}', /path of an image/],
  ['{"plug":{"path":"a\\u0000b"}}', /path of an image/],
  ['{"plug":{"path":"a","readOnly":1}}', /readOnly is to be true or false/],
  ['{"list":false}', /makes no sense/],
  ['{"unplug":7}', /makes no sense/],
] as const)
  test(`refused: ${line}`, () => {
    assert.throws(() => parseRequest(line), { name: 'RangeError', message });
  });

test('24: any text is a request or refused, and lines do not depend on how they are cut', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseRequest(text);
      } catch (error) {
        assert.ok(error instanceof RangeError);
      }
    }),
    { seed: 1 },
  );
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 5 })), (chunks) => {
      const reader = new LineReader();
      const lines = chunks.flatMap((chunk) => (reader.add(chunk) ? reader.take() : []));
      assert.deepEqual(lines, chunks.join('').split('\n').slice(0, -1));
    }),
    { seed: 2 },
  );
});

test('a line without end is refused before it fills the memory', () => {
  const reader = new LineReader();
  assert.ok(reader.add('x'.repeat(MAX_LINE)));
  assert.deepEqual(reader.take(), []);
  assert.equal(reader.add('x'), false);
});
