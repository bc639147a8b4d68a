import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noTrace, type Tracer } from '../../../trace.ts';
import { domainId } from '../../../xen/ids.ts';
import { arenaOfTest, native } from '../native.test.helper.ts';
import { type FakeGuest, FakeKernel } from './fake-kernel.test.helper.ts';
import { mapForeignMemory } from './foreign-memory.ts';
import { openXenHost } from './host.ts';
import { Privcmd } from './privcmd.ts';

const GUEST = domainId(4);

function scene(guest: Partial<FakeGuest>) {
  const kernel = new FakeKernel();
  kernel.addGuest(GUEST, guest);
  const reported: string[] = [];
  const tracer: Tracer = {
    ...noTrace,
    reach: (...what) => reported.push(`reach ${what}`),
    reachEnd: (...what) => reported.push(`end ${what}`),
  };
  const parts = {
    libc: kernel.libc,
    privcmd: new Privcmd(kernel.libc, arenaOfTest()),
    id: domainId(0),
    tracer,
  };
  return { kernel, parts, reported };
}

test('a guest’s memory is one piece, and its holes are memory that nobody else sees', native, () => {
  const { parts, reported } = scene({ pages: 16, holes: [3, 4, 15] });
  const [one, other] = [mapForeignMemory(parts, GUEST, 'x64'), mapForeignMemory(parts, GUEST, 'x64')];
  assert.deepEqual([one.base, one.region.byteLength], [0, 16 * 4096]);
  one.region.u8.fill(9);
  for (let frame = 0; frame < 16; frame++)
    assert.equal(other.region.u8[frame * 4096 + 5], [3, 4, 15].includes(frame) ? 0 : 9);
  assert.deepEqual(reported.splice(0), ['reach 0,4,0,16', 'reach 0,4,0,16']);
  one.close();
  assert.deepEqual(reported, ['end 0,4,0,16']);
  other.close();
});

test('a guest whose first frame is not there, and a PV guest, are refused with the reason', native, () => {
  const { parts, reported } = scene({ holes: [0] });
  assert.throws(() => mapForeignMemory(parts, GUEST, 'x64'), {
    name: 'RangeError',
    message: /domain 0 cannot map the memory of domain 4: the first frame of its memory is not there/,
  });
  assert.deepEqual(reported, ['reach 0,4,0,16', 'end 0,4,0,16']);
  const pv = scene({ kind: 'pv' });
  assert.throws(() => mapForeignMemory(pv.parts, GUEST, 'x64'), /a PV guest has no address space/);
});

test('C4: a host that cannot be opened leaves nothing open, and one that was closed neither', native, () => {
  for (const missing of ['/dev/xen/privcmd', '/dev/xen/gntdev', '/dev/xen/evtchn']) {
    const { kernel } = scene({});
    const before = kernel.open;
    kernel.missing.set(missing, 2);
    assert.throws(() => openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0) }), {
      name: 'XenUnavailable',
      message: new RegExp(`^${missing} is not there: .*modprobe xen-`),
    });
    assert.equal(kernel.open, before);
    kernel.missing.clear();
    const host = openXenHost({ libc: kernel.libc, arena: arenaOfTest(), id: domainId(0) });
    host.mapForeignMemory(GUEST).close();
    host.close();
    assert.equal(kernel.open, before);
  }
});
