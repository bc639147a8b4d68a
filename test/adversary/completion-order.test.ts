// What a driver that looks at every moment sees of a completion: everything is written, then unmapped, then
// reported. Once a page is unmapped the driver may use it for something else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as blk from '../../src/abi/virtio-blk.ts';
import { readyToRead, Scene } from '../support/scene.test.helper.ts';

test('F36 answer and status are written before any page is unmapped, and all are unmapped before the report', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const { grantMapper } = scene.backend.ports;
  const unmap = grantMapper.unmap.bind(grantMapper);
  let unmapped = 0;
  grantMapper.unmap = (place) => {
    assert.equal(queue.used.index, 0, 'nothing is reported while a page of it is mapped');
    assert.equal(request.status(512), blk.VIRTIO_BLK_S_OK, 'the status is there');
    assert.deepEqual(request.data.bytes.slice(0, 512), scene.bytes.slice(0, 512), 'and the data');
    unmapped++;
    return unmap(place);
  };
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(unmapped, 3, 'header, data and status');
  grantMapper.unmap = unmap;
  await scene.finish();
});
