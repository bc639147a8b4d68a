import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../../test/support/memory-disk.ts';
import { requestBytes } from '../../test/support/nbd.ts';
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_REQUEST_MAGIC,
  nbdRequest,
} from '../abi/nbd.ts';
import { ProtocolViolation } from '../errors.ts';
import { serveExports } from './export.ts';
import { decodeRequest, refusalOf } from './request.ts';

const [full, plain, readOnly] = serveExports([
  { name: 'full', disk: new MemoryDisk(8192) },
  {
    name: 'plain',
    disk: new MemoryDisk(8192, { canFlush: false, canDiscard: false, canWriteZeroes: false }),
  },
  { name: 'read-only', disk: new MemoryDisk(8192, { readOnly: true }) },
]);
const NBD_CMD_CACHE = 5;
const NBD_CMD_BLOCK_STATUS = 7;
const NBD_CMD_FLAG_DF = 1 << 2;
const NBD_CMD_FLAG_FAST_ZERO = 1 << 4;

/** Export, command, request, expected error (0: served), and whether replies are structured. */
const cases: [
  string,
  typeof full,
  number,
  { flags?: number; offset?: number; length?: number },
  number,
  boolean?,
][] = [
  ['read to the end', full, NBD_CMD_READ, { offset: 4096, length: 4096 }, 0],
  ['read of nothing at the end', full, NBD_CMD_READ, { offset: 8192 }, 0],
  ['read past the end', full, NBD_CMD_READ, { offset: 4096, length: 4097 }, NBD_EINVAL],
  ['write past the end', full, NBD_CMD_WRITE, { offset: 8192, length: 1 }, NBD_ENOSPC],
  ['zeroes past the end', full, NBD_CMD_WRITE_ZEROES, { offset: 0, length: 8193 }, NBD_ENOSPC],
  ['trim past the end', full, NBD_CMD_TRIM, { offset: 1, length: 8192 }, NBD_EINVAL],
  ['read of over 32 MiB', full, NBD_CMD_READ, { length: (1 << 25) + 1 }, NBD_EINVAL],
  ['read of over 32 MiB, structured', full, NBD_CMD_READ, { length: (1 << 25) + 1 }, NBD_EOVERFLOW, true],
  ['write of over 32 MiB', full, NBD_CMD_WRITE, { length: (1 << 25) + 1 }, NBD_EINVAL],
  ['zeroes of over 32 MiB', full, NBD_CMD_WRITE_ZEROES, { length: 0xffff_ffff }, NBD_ENOSPC],
  ['FUA with a write', full, NBD_CMD_WRITE, { flags: NBD_CMD_FLAG_FUA, length: 1 }, 0],
  ['FUA with a read', full, NBD_CMD_READ, { flags: NBD_CMD_FLAG_FUA, length: 1 }, 0],
  ['FUA that was not offered', plain, NBD_CMD_WRITE, { flags: NBD_CMD_FLAG_FUA, length: 1 }, NBD_EINVAL],
  ['NO_HOLE with zeroes', full, NBD_CMD_WRITE_ZEROES, { flags: NBD_CMD_FLAG_NO_HOLE, length: 1 }, 0],
  ['NO_HOLE with a write', full, NBD_CMD_WRITE, { flags: NBD_CMD_FLAG_NO_HOLE, length: 1 }, NBD_EINVAL],
  [
    'FAST_ZERO, never offered',
    full,
    NBD_CMD_WRITE_ZEROES,
    { flags: NBD_CMD_FLAG_FAST_ZERO, length: 1 },
    NBD_EINVAL,
  ],
  ['DF, never offered', full, NBD_CMD_READ, { flags: NBD_CMD_FLAG_DF, length: 1 }, NBD_EINVAL],
  ['flush', full, NBD_CMD_FLUSH, {}, 0],
  ['flush of a range', full, NBD_CMD_FLUSH, { length: 512 }, NBD_EINVAL],
  ['flush that was not offered', plain, NBD_CMD_FLUSH, {}, NBD_EINVAL],
  ['trim that was not offered', plain, NBD_CMD_TRIM, { length: 512 }, NBD_EINVAL],
  ['zeroes that were not offered', plain, NBD_CMD_WRITE_ZEROES, { length: 512 }, NBD_EINVAL],
  ['write to a read-only export', readOnly, NBD_CMD_WRITE, { length: 512 }, NBD_EPERM],
  ['trim of a read-only export', readOnly, NBD_CMD_TRIM, { length: 512 }, NBD_EPERM],
  ['zeroes on a read-only export', readOnly, NBD_CMD_WRITE_ZEROES, { length: 512 }, NBD_EPERM],
  ['cache, not offered', full, NBD_CMD_CACHE, { length: 512 }, NBD_EINVAL],
  ['block status, not negotiated', full, NBD_CMD_BLOCK_STATUS, { length: 512 }, NBD_EINVAL],
  ['an unknown command', full, 0xffff, {}, NBD_EINVAL],
];

for (const [what, target, type, { flags = 0, offset = 0, length = 0 }, error, structured = false] of cases)
  test(`${what}: ${error === 0 ? 'served' : `error ${error}`}`, () => {
    const request = { type, flags, offset, length, cookieHigh: 0, cookieLow: 0 };
    assert.equal(refusalOf(request, target, structured)?.error ?? 0, error);
  });

test('a request is copied out of its message; an offset of any 64 bits is past the end, not an exception', () => {
  const bytes = requestBytes(NBD_CMD_READ, {
    cookie: 0xfedc_ba98_7654_3210n,
    offset: 0xffff_ffff_ffff_fe00n,
    length: 512,
  });
  const request = decodeRequest(nbdRequest.over(bytes));
  assert.deepEqual([request.cookieHigh, request.cookieLow], [0xfedc_ba98, 0x7654_3210]);
  assert.equal(refusalOf(request, full, false)?.error, NBD_EINVAL);
});

test('a message that does not begin like a request breaks the protocol', () => {
  const bytes = requestBytes(NBD_CMD_READ);
  bytes[0] ^= 1;
  assert.throws(() => decodeRequest(nbdRequest.over(bytes)), ProtocolViolation);
  assert.equal(NBD_REQUEST_MAGIC, 0x25609513);
});
