import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  NBD_INIT_MAGIC,
  NBD_OPTION_MAGIC,
  NBD_REQUEST_MAGIC,
  nbdBlockSizeInfo,
  nbdExportInfo,
  nbdExportNameReply,
  nbdGreeting,
  nbdOption,
  nbdOptionReply,
  nbdReplyChunk,
  nbdReplyError,
  nbdRequest,
  nbdSimpleReply,
} from './nbd.ts';
import type { Struct } from './struct.ts';

/** The specification's listings, as bits in the order of the wire. */
const listings: [Pick<Struct<never>, 'name' | 'fields' | 'size'>, number[]][] = [
  [nbdGreeting, [64, 64, 16]],
  [nbdOption, [64, 32, 32]],
  [nbdOptionReply, [64, 32, 32, 32]],
  [nbdExportNameReply, [64, 16, 124 * 8]],
  [nbdExportInfo, [16, 64, 16]],
  [nbdBlockSizeInfo, [16, 32, 32, 32]],
  [nbdRequest, [32, 16, 16, 64, 64, 32]],
  [nbdSimpleReply, [32, 32, 64]],
  [nbdReplyChunk, [32, 16, 16, 64, 32]],
  [nbdReplyError, [32, 16]],
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
  const { bytes } = nbdGreeting.make({ initMagic: NBD_INIT_MAGIC, optionMagic: NBD_OPTION_MAGIC });
  assert.equal(Buffer.from(bytes.subarray(0, 16)).toString(), 'NBDMAGICIHAVEOPT');
});

test('every kind of integer is big endian', () => {
  const request = nbdRequest.make({
    magic: NBD_REQUEST_MAGIC,
    flags: 0x0102,
    type: 0x0304,
    cookieHigh: 0x11121314,
    cookieLow: 0x15161718,
    offset: 0x0001_0203_0405_0607,
    length: 0x31323334,
  });
  assert.equal(
    Buffer.from(request.bytes).toString('hex'),
    '25609513010203041112131415161718' + '000102030405060731323334',
  );
  const info = nbdExportInfo.make({ size: 0x0001_0203_0405_0607 });
  assert.equal(Buffer.from(info.bytes).toString('hex'), '000000010203040506070000');
  assert.equal(info.size, 0x0001_0203_0405_0607);
});

test('a dump shows big-endian values as they are meant', () => {
  const { bytes } = nbdSimpleReply.make({ magic: 0x67446698, error: 22 });
  assert.match(nbdSimpleReply.dump(bytes), /67 44 66 98 +magic = 0x67446698\n.*error = 0x16/);
});

test('an offset of any 64 bits reads as a number that is past every end', () => {
  const bytes = new Uint8Array(nbdRequest.size).fill(0xff);
  assert.equal(nbdRequest.over(bytes).offset, 2 ** 64);
});
