import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  NBD_BLOCK_SIZE_INFO,
  NBD_EXPORT_INFO,
  NBD_EXPORT_NAME_REPLY,
  NBD_GREETING,
  NBD_INIT_MAGIC,
  NBD_OPTION,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY,
  NBD_REPLY_CHUNK,
  NBD_REPLY_ERROR,
  NBD_REQUEST,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY,
} from './nbd.ts';
import type { Struct } from './struct.ts';

/** The specification's listings, as bits in the order of the wire. */
const listings: [Pick<Struct<never>, 'name' | 'fields' | 'size'>, number[]][] = [
  [NBD_GREETING, [64, 64, 16]],
  [NBD_OPTION, [64, 32, 32]],
  [NBD_OPTION_REPLY, [64, 32, 32, 32]],
  [NBD_EXPORT_NAME_REPLY, [64, 16, 124 * 8]],
  [NBD_EXPORT_INFO, [16, 64, 16]],
  [NBD_BLOCK_SIZE_INFO, [16, 32, 32, 32]],
  [NBD_REQUEST, [32, 16, 16, 64, 64, 32]],
  [NBD_SIMPLE_REPLY, [32, 32, 64]],
  [NBD_REPLY_CHUNK, [32, 16, 16, 64, 32]],
  [NBD_REPLY_ERROR, [32, 16]],
];

for (const [record, bits] of listings)
  test(`${record.name} is laid out as the specification lists it`, () => {
    assert.deepEqual(
      record.fields.map(({ size }) => size * 8),
      bits,
    );
    assert.equal(
      record.size * 8,
      bits.reduce((sum, each) => sum + each),
    );
  });

test('the magic numbers of the handshake spell NBDMAGIC and IHAVEOPT on the wire', () => {
  const { bytes } = NBD_GREETING.make({ initMagic: NBD_INIT_MAGIC, optionMagic: NBD_OPTION_MAGIC });
  assert.equal(Buffer.from(bytes.subarray(0, 16)).toString(), 'NBDMAGICIHAVEOPT');
});

test('every kind of integer is big endian', () => {
  const request = NBD_REQUEST.make({
    magic: NBD_REQUEST_MAGIC,
    flags: 0x0102,
    type: 0x0304,
    cookieHigh: 0x11121314,
    cookieLow: 0x15161718,
    offsetHigh: 0x21222324,
    offsetLow: 0x25262728,
    length: 0x31323334,
  });
  assert.equal(
    Buffer.from(request.bytes).toString('hex'),
    '256095130102030411121314151617182122232425262728' + '31323334',
  );
  const info = NBD_EXPORT_INFO.make({ size: 0x0001_0203_0405_0607 });
  assert.equal(Buffer.from(info.bytes).toString('hex'), '000000010203040506070000');
  assert.equal(info.size, 0x0001_0203_0405_0607);
});

test('a dump shows big-endian values as they are meant', () => {
  const { bytes } = NBD_SIMPLE_REPLY.make({ magic: 0x67446698, error: 22 });
  assert.match(NBD_SIMPLE_REPLY.dump(bytes), /67 44 66 98 +magic = 0x67446698\n.*error = 0x16/);
});

test('a u64 above 2^53 - 1 is refused when read', () => {
  const record = NBD_EXPORT_INFO.over(Buffer.from('000000200000000000000000', 'hex'));
  assert.throws(() => record.size, /size: 0x20000000000000 is above 2\^53 - 1/);
});
