// The buffer that outlives a backend: which part of it a ring has.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VHOST_USER_SET_INFLIGHT_FD, vhostUserInflight } from '../../abi/vhost-user.ts';
import { inflightQueueSize } from '../../abi/vhost-user-inflight.ts';
import { ProtocolViolation } from '../../errors.ts';
import { CountingPlatform } from './frontend.test.helper.ts';
import { InflightBuffer } from './inflight-buffer.ts';

test('T8: a ring smaller than the device’s has its part, a larger one or one more is refused', () => {
  const platform = new CountingPlatform();
  const buffer = new InflightBuffer(platform, [16, 16, 16]);
  const mmap_size = 2 * inflightQueueSize(8);
  const { bytes: payload } = vhostUserInflight.make({ mmap_size, num_queues: 2, queue_size: 8 });
  const fds = [platform.descriptor(new ArrayBuffer(mmap_size))];
  buffer.adopt({ request: VHOST_USER_SET_INFLIGHT_FD, flags: 1, payload, fds })();
  for (const size of [4, 8]) assert.equal(buffer.area(1, size)?.offset, inflightQueueSize(8));
  assert.throws(() => buffer.area(1, 16), ProtocolViolation);
  assert.throws(() => buffer.area(2, 8), ProtocolViolation);
  buffer.close();
  assert.equal(platform.mappings, 0);
});
