import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import fc from 'fast-check';
import { IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF } from '../../../abi/gntdev.ts';
import { GNTST_BAD_HANDLE, GNTST_GENERAL_ERROR, GNTST_NO_SPACE, GNTST_OKAY } from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { traceTo } from '../../../dma/sharing.test.helper.ts';
import { noTrace } from '../../../trace.ts';
import type { GrantPages } from '../../../xen/grant-mapper.ts';
import { grantPages } from '../../../xen/grant-pages.test.helper.ts';
import { domainId } from '../../../xen/ids.ts';
import { arenaOfTest, mappingsIn, native } from '../native.test.helper.ts';
import { FakeKernel } from './fake-kernel.test.helper.ts';
import { Gntdev, MOST_PAGES } from './gntdev.ts';
import { GntdevMapper } from './gntdev-mapper.ts';

const OWNER = domainId(3);
/** Places of the window. */
const PLACES = 0x4000;

function scene(tracer = noTrace) {
  const kernel = new FakeKernel();
  kernel.addGuest(OWNER);
  const [arena, id] = [arenaOfTest(), domainId(0)];
  const gntdev = new Gntdev(kernel.libc, arena);
  const mapper = new GntdevMapper({ libc: kernel.libc, arena, gntdev, id, tracer });
  /** Pages that the owner grants, and the list of their references. */
  const grant = (count: number, readonly = false) => {
    const granted = Array.from({ length: count }, () => kernel.grant(OWNER, readonly));
    return { granted, pages: grantPages(...granted.map(({ ref }) => ref)) };
  };
  const map = (pages: GrantPages): void => assert.equal(mapper.mapPages(OWNER, pages, false), GNTST_OKAY);
  const unmap = (pages: GrantPages): void => assert.equal(mapper.unmapPages(pages), GNTST_OKAY);
  return { kernel, gntdev, mapper, grant, map, unmap };
}

/** References of one page, `count` times: as many places. */
const repeated = (ref: number, count: number): GrantPages =>
  grantPages(...new Array<number>(count).fill(ref));

test('pages of a list stand in a row, in one region that system calls can be given', native, () => {
  const { kernel, mapper, grant, map, unmap } = scene();
  const { granted, pages } = grant(4);
  const before = repeated(granted[0].ref, 1);
  map(before);
  unmap(before);
  map(pages);
  const [start] = pages.handles.map((handle) => mapper.offset(handle));
  assert.deepEqual(
    pages.handles.map((handle) => mapper.offset(handle) - start),
    [0, 4096, 8192, 12288],
  );
  assert.equal(new Set(pages.handles.map((handle) => mapper.region(handle))).size, 1);
  const { libc } = kernel;
  const fd = libc.memfd_create('grantio-source', 0);
  libc.ftruncate(fd, 3 * XEN_PAGE_SIZE);
  const { address, u8 } = mapper.region(pages.handles[0]);
  u8.fill(7, start + 100, start + 9000);
  assert.equal(libc.pwrite(fd, address + start + 100, 8900, 0), 8900);
  assert.equal(libc.pread(fd, address + start + 1, 8900, 0), 8900);
  assert.deepEqual(
    [granted[0].bytes[0], granted[0].bytes[1], granted[2].bytes[708], granted[2].bytes[709]],
    [0, 7, 7, 7],
  );
  libc.close(fd);
  mapper.close();
});

test('a list takes four calls, however long it is, and no more than a list of one', native, () => {
  const { kernel, mapper, grant, map, unmap } = scene();
  for (const count of [1, 2, 32]) {
    const { pages } = grant(count);
    const before = kernel.calls;
    map(pages);
    unmap(pages);
    assert.equal(kernel.calls - before, 4, `${count} pages`);
  }
  mapper.close();
});

test(
  'a list that is longer than the device takes is mapped by several calls, and ended by as many',
  native,
  () => {
    const { kernel, mapper, grant, map, unmap } = scene();
    const [{ ref }] = grant(1).granted;
    const pages = repeated(ref, 2 * MOST_PAGES + 5);
    const before = kernel.calls;
    map(pages);
    assert.deepEqual([kernel.calls - before, mapper.live, kernel.mapped], [6, pages.count, pages.count]);
    assert.deepEqual(
      pages.handles,
      pages.handles.map((_, i) => pages.handles[0] + i),
    );
    unmap(pages);
    assert.deepEqual([kernel.calls - before, mapper.live, kernel.mapped, kernel.announced], [12, 0, 0, 0]);
    mapper.close();
  },
);

test('a device that takes fewer pages by one call than usual is asked for each by itself', native, () => {
  const { kernel, mapper, grant, map, unmap } = scene();
  kernel.gntdevLimit = 3;
  const { granted, pages } = grant(6);
  map(pages);
  for (const [i, { bytes }] of granted.entries()) {
    bytes[9] = i + 1;
    assert.equal(mapper.region(pages.handles[i]).u8[mapper.offset(pages.handles[i]) + 9], i + 1);
  }
  unmap(pages);
  assert.deepEqual([mapper.live, kernel.mapped, kernel.announced], [0, 0, 0]);
  mapper.close();
});

test('a list goes into the gaps where no row of free places is long enough', native, () => {
  const { kernel, mapper, grant, map, unmap } = scene();
  const [{ ref }] = grant(1).granted;
  const rows = Array.from({ length: PLACES / 4 }, () => repeated(ref, 4));
  for (const row of rows) map(row);
  for (const number of [1, 3, 10]) unmap(rows[number]);
  const { granted, pages } = grant(11);
  const before = kernel.calls;
  map(pages);
  assert.equal(kernel.calls - before, 6, 'a row of 4, another, and 3 of the last');
  assert.equal(new Set(pages.handles).size, 11);
  for (const [i, { bytes }] of granted.entries()) {
    bytes[9] = i + 1;
    assert.equal(mapper.region(pages.handles[i]).u8[mapper.offset(pages.handles[i]) + 9], i + 1);
  }
  const two = grant(2).pages;
  assert.equal(mapper.mapPages(OWNER, two, false), GNTST_NO_SPACE);
  assert.equal(mapper.live, PLACES - 1, 'the one that found a place was let go again');
  unmap(pages);
  map(two);
  mapper.close();
});

test('no list goes round the end of the window', native, () => {
  const { mapper, grant, map, unmap } = scene();
  const [{ ref }] = grant(1).granted;
  const nearlyAll = repeated(ref, PLACES - 2);
  map(nearlyAll);
  unmap(nearlyAll);
  const four = repeated(ref, 4);
  map(four);
  assert.deepEqual(four.handles, [0, 1, 2, 3]);
  mapper.close();
});

test('a part of a list is not unmapped', native, () => {
  const { mapper, grant, map, unmap } = scene();
  const { pages } = grant(3);
  map(pages);
  const part = grantPages(...pages.refs.slice(0, 2));
  part.handles.push(...pages.handles.slice(0, 2));
  assert.equal(mapper.unmapPages(part), GNTST_BAD_HANDLE);
  assert.equal(mapper.live, 3);
  unmap(pages);
  mapper.close();
});

test(
  'T17: a refused list leaves nothing behind: no page, no record of the device, no hole in the window',
  native,
  () => {
    const { kernel, mapper, grant, map } = scene();
    const [{ ref: good }] = grant(1).granted;
    const [{ ref: bad }] = grant(1, true).granted;
    const one = repeated(good, 1);
    map(one);
    const { address, byteLength } = mapper.region(one.handles[0]);
    const [before, mapped, live] = [mappingsIn(address, byteLength), kernel.mapped, mapper.live];
    for (let i = 0; i < 100; i++) {
      assert.equal(mapper.mapPages(OWNER, grantPages(bad), false), GNTST_GENERAL_ERROR);
      assert.equal(mapper.mapPages(OWNER, grantPages(good, good, bad, good), false), GNTST_GENERAL_ERROR);
    }
    assert.deepEqual([kernel.mapped, kernel.announced, mapper.live], [mapped, mapped, live]);
    // Places may have been taken out of the window's middle and put back: two more mappings at most.
    assert.ok(mappingsIn(address, byteLength) - before <= 2);
    assert.equal(mapper.mapPages(OWNER, grantPages(good, bad), true), GNTST_OKAY);
    mapper.close();
  },
);

test(
  'T17: a device without memory is GNTST_no_space, and other failures of its own are general errors',
  native,
  () => {
    const { kernel, mapper, grant, map } = scene();
    const { pages } = grant(2);
    kernel.failing.set(IOCTL_GNTDEV_MAP_GRANT_REF, constants.errno.ENOMEM);
    assert.equal(mapper.mapPages(OWNER, pages, false), GNTST_NO_SPACE);
    kernel.failing.set(IOCTL_GNTDEV_MAP_GRANT_REF, constants.errno.EFAULT);
    assert.equal(mapper.mapPages(OWNER, pages, false), GNTST_GENERAL_ERROR);
    kernel.failing.clear();
    map(pages);
    mapper.close();
  },
);

test(
  'T18: a device that refuses to forget a list is counted, and the pages are not mapped all the same',
  native,
  () => {
    const { kernel, gntdev, mapper, grant, map, unmap } = scene();
    const { pages } = grant(2);
    map(pages);
    kernel.failing.set(IOCTL_GNTDEV_UNMAP_GRANT_REF, constants.errno.EINTR);
    unmap(pages);
    assert.deepEqual([gntdev.kept, kernel.mapped], [1, 0]);
    mapper.close();
  },
);

test('C4: nothing is mapped any more when the window is closed', native, () => {
  const { kernel, gntdev, mapper, grant } = scene();
  for (let i = 0; i < 20; i++)
    assert.equal(mapper.mapPages(OWNER, grant(1 + (i % 3)).pages, i % 2 === 0), GNTST_OKAY);
  assert.deepEqual([kernel.mapped, kernel.announced, mapper.live], [39, 39, 39]);
  mapper.close();
  gntdev.close();
  assert.deepEqual([kernel.mapped, kernel.announced, kernel.open], [0, 0, 0]);
});

test(
  'what is reported of a list is what is reported of its pages, mapped and unmapped one by one',
  native,
  () => {
    const events: string[] = [];
    // Not the handle, which comes fourth: lists take other places.
    const tracer = traceTo((name, ...[mapper, owner, ref, handle, readonly]) =>
      events.push([name, mapper, owner, ref, name === 'mapRefused' ? handle : 'any', readonly].join(' ')),
    );
    const { kernel, mapper } = scene(tracer);
    const refs = [...[false, false, false, true].map((readonly) => kernel.grant(OWNER, readonly).ref), 5000];
    const heard = (run: () => void): string[] => {
      events.length = 0;
      run();
      return [...events];
    };
    const unmapBackwards = (lists: GrantPages[]): void => {
      for (const list of lists.reverse()) assert.equal(mapper.unmapPages(list), GNTST_OKAY);
    };
    const oneByOne = (wanted: number[], readonly: boolean): number => {
      const mapped: GrantPages[] = [];
      let status: number = GNTST_OKAY;
      for (const ref of wanted) {
        const page = grantPages(ref);
        status = mapper.mapPages(OWNER, page, readonly);
        if (status !== GNTST_OKAY) break;
        mapped.push(page);
      }
      unmapBackwards(mapped);
      return status;
    };
    const atOnce = (wanted: number[], readonly: boolean): number => {
      const pages = grantPages(...wanted);
      const status = mapper.mapPages(OWNER, pages, readonly);
      if (status === GNTST_OKAY) unmapBackwards([pages]);
      return status;
    };
    fc.assert(
      fc.property(fc.array(fc.nat(14), { maxLength: 6 }), fc.boolean(), (choice, readonly) => {
        const wanted = choice.map((each) => refs[Math.max(each - 10, each % 3)]);
        const statuses: number[] = [];
        const ways = [oneByOne, atOnce].map((way) => heard(() => statuses.push(way(wanted, readonly))));
        assert.deepEqual(ways[1], ways[0]);
        assert.equal(statuses[1], statuses[0]);
        assert.equal(mapper.live, 0);
      }),
      { seed: 42, numRuns: 200 },
    );
    mapper.close();
  },
);
