import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF } from '../../../abi/gntdev.ts';
import { GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { noTrace } from '../../../trace.ts';
import { domainId } from '../../../xen/ids.ts';
import { arenaOfTest, mappingsIn, native } from '../native.test.helper.ts';
import { FakeKernel } from './fake-kernel.test.helper.ts';
import { Gntdev } from './gntdev.ts';
import { GntdevMapper } from './gntdev-mapper.ts';

const OWNER = domainId(3);

function scene() {
  const kernel = new FakeKernel();
  kernel.addGuest(OWNER);
  const [arena, id] = [arenaOfTest(), domainId(0)];
  const gntdev = new Gntdev(kernel.libc, arena);
  const mapper = new GntdevMapper({ libc: kernel.libc, arena, gntdev, id, tracer: noTrace });
  return { kernel, gntdev, mapper };
}

test(
  'pages that are mapped in a row stand in a row, in one region that system calls can be given',
  native,
  () => {
    const { kernel, mapper } = scene();
    const pages = Array.from({ length: 4 }, () => kernel.grant(OWNER, false));
    const first = mapper.map(OWNER, pages[0].ref, false);
    mapper.unmap(first);
    const handles = pages.map(({ ref }) => mapper.map(OWNER, ref, false));
    const [start] = handles.map((handle) => mapper.offset(handle));
    assert.deepEqual(
      handles.map((handle) => mapper.offset(handle) - start),
      [0, 4096, 8192, 12288],
    );
    assert.equal(new Set(handles.map((handle) => mapper.region(handle))).size, 1);
    const { libc } = kernel;
    const fd = libc.memfd_create('grantio-source', 0);
    libc.ftruncate(fd, 3 * XEN_PAGE_SIZE);
    const { address, u8 } = mapper.region(handles[0]);
    u8.fill(7, start + 100, start + 9000);
    assert.equal(libc.pwrite(fd, address + start + 100, 8900, 0), 8900);
    assert.equal(libc.pread(fd, address + start + 1, 8900, 0), 8900);
    assert.deepEqual(
      [pages[0].bytes[0], pages[0].bytes[1], pages[2].bytes[708], pages[2].bytes[709]],
      [0, 7, 7, 7],
    );
    libc.close(fd);
    mapper.close();
  },
);

test(
  'T17: a refused mapping leaves nothing behind: no page, no record of the device, no hole in the window',
  native,
  () => {
    const { kernel, mapper } = scene();
    const { ref } = kernel.grant(OWNER, true);
    const { address, byteLength } = mapper.region(mapper.map(OWNER, kernel.grant(OWNER, false).ref, false));
    const [before, mapped, live] = [mappingsIn(address, byteLength), kernel.mapped, mapper.live];
    for (let i = 0; i < 100; i++) assert.equal(mapper.map(OWNER, ref, false), GNTST_GENERAL_ERROR);
    assert.deepEqual([kernel.mapped, kernel.announced, mapper.live], [mapped, mapped, live]);
    // The place may have been taken out of the window's middle and put back: two more mappings at most.
    assert.ok(mappingsIn(address, byteLength) - before <= 2);
    assert.ok(mapper.map(OWNER, ref, true) >= 0);
    mapper.close();
  },
);

test(
  'T17: a device without memory is GNTST_no_space, and other failures of its own are general errors',
  native,
  () => {
    const { kernel, mapper } = scene();
    const { ref } = kernel.grant(OWNER, false);
    kernel.failing.set(IOCTL_GNTDEV_MAP_GRANT_REF, constants.errno.ENOMEM);
    assert.equal(mapper.map(OWNER, ref, false), GNTST_NO_SPACE);
    kernel.failing.set(IOCTL_GNTDEV_MAP_GRANT_REF, constants.errno.EFAULT);
    assert.equal(mapper.map(OWNER, ref, false), GNTST_GENERAL_ERROR);
    kernel.failing.clear();
    assert.ok(mapper.map(OWNER, ref, false) >= 0);
    mapper.close();
  },
);

test(
  'T18: a device that refuses to forget a page is counted, and the page is not mapped all the same',
  native,
  () => {
    const { kernel, gntdev, mapper } = scene();
    const { ref } = kernel.grant(OWNER, false);
    const handle = mapper.map(OWNER, ref, false);
    kernel.failing.set(IOCTL_GNTDEV_UNMAP_GRANT_REF, constants.errno.EINTR);
    assert.equal(mapper.unmap(handle), GNTST_OKAY);
    assert.deepEqual([gntdev.kept, kernel.mapped], [1, 0]);
    mapper.close();
  },
);

test('C4: nothing is mapped any more when the window is closed', native, () => {
  const { kernel, gntdev, mapper } = scene();
  for (let i = 0; i < 20; i++) assert.ok(mapper.map(OWNER, kernel.grant(OWNER, false).ref, i % 2 === 0) >= 0);
  assert.deepEqual([kernel.mapped, kernel.announced, mapper.live], [20, 20, 20]);
  mapper.close();
  gntdev.close();
  assert.deepEqual([kernel.mapped, kernel.announced, kernel.open], [0, 0, 0]);
});
