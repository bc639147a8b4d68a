import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VisibleText } from './visible-text.ts';

/** `text` through one filter, as UTF-8 in pieces. */
function shown(...pieces: readonly (string | Uint8Array)[]): Buffer {
  const filter = new VisibleText();
  return Buffer.concat(
    pieces.map((piece) => filter.filter(typeof piece === 'string' ? Buffer.from(piece) : piece)),
  );
}

test('D9: what a terminal would obey is shown, what people write is as it was', () => {
  assert.equal(shown('login: röm\t1\r\n').toString(), 'login: röm\t1\n');
  assert.equal(shown('\x1b[2J\x07\x7f\0').toString(), '^[[2J^G^?^@');
  assert.equal(shown('secret\rpublic', '\r', '\n', '\r').toString(), 'secret^Mpublic\n');
  // U+009B is CSI, as ESC [ is, also where its two bytes come in two pieces.
  const [csi, rest] = [Buffer.from('a\u009b'), Buffer.from('\u009b2J')];
  assert.equal(shown(csi.subarray(0, 2), csi.subarray(2), rest).includes(Buffer.from('\u009b')), false);
});

test('D9: no bytes, in no pieces, become a control character that is obeyed', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), (pieces) => {
      const text = shown(...pieces);
      for (const [at, byte] of text.entries()) {
        assert.ok(byte === 0x0a || byte === 0x09 || (byte >= 0x20 && byte !== 0x7f));
        assert.ok(at === 0 || text[at - 1] !== 0xc2 || byte < 0x80 || byte > 0x9f);
      }
      assert.deepEqual(shown(Buffer.concat(pieces)), text, 'however it is cut');
    }),
    { seed: 9 },
  );
});
