// The vectors in vectors/*.json against sources that have nothing to do with the code that made them: tables and
// rules of specifications and headers, written down here once more, and plain arithmetic of whole numbers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { vectors } from './vectors.ts';

type Json = Readonly<Record<string, unknown>>;
interface Case {
  readonly id: string;
  readonly source: string;
  readonly input: Json;
  readonly expected: Json;
  readonly wrong?: readonly { readonly by: string; readonly answer: Json }[];
}

const folder = new URL('../../../vectors/', import.meta.url);

/** The cases of a file, as another project reads them. */
function casesOf(group: string): readonly Case[] {
  const { vectors: cases } = JSON.parse(readFileSync(new URL(`${group}.json`, folder), 'utf8')) as {
    vectors: readonly Case[];
  };
  return cases;
}

function caseOf(group: string, id: string): Case {
  const found = casesOf(group).find((each) => each.id === id);
  assert.ok(found, `${group} has no ${id}`);
  return found;
}

for (const made of Object.values(vectors))
  test(`vectors/${made.group}.json is what the code makes: node scripts/vectors.mjs`, () => {
    assert.deepEqual(JSON.parse(readFileSync(new URL(`${made.group}.json`, folder), 'utf8')), made);
  });

test('each vector has an id of its own and a source, and no wrong answer is the right one', () => {
  for (const { group } of Object.values(vectors)) {
    const cases = casesOf(group);
    assert.equal(new Set(cases.map(({ id }) => id)).size, cases.length, group);
    for (const { id, source, expected, wrong = [] } of cases) {
      assert.match(id, /^[\w-]+$/);
      assert.ok(source.length > 10, id);
      for (const { by, answer } of wrong) {
        assert.ok(by.length > 10, id);
        assert.notDeepEqual(answer, expected, id);
      }
    }
  }
});

test('they are in the package: grantio/vectors, and each file', async () => {
  const entry: unknown = await import(import.meta.resolve('grantio/vectors'));
  assert.deepEqual(Object.keys((entry as { vectors: object }).vectors), Object.keys(vectors));
  const require = createRequire(import.meta.url);
  for (const made of Object.values(vectors))
    assert.deepEqual(require(`grantio/vectors/${made.group}.json`), made);
});

// Linux, drivers/xen/grant-dma-ops.c: 1 << 63 | reference << 12 | offset.
const ADDRESSES: [address: string, reference: number, offset: number][] = [
  ['0x8000000000000000', 0, 0],
  ['0x8000000000001000', 1, 0],
  ['0x8000000000008000', 8, 0],
  ['0x8000000000044aa8', 0x44, 0xaa8],
  ['0x80000fffffffffff', 0xffffffff, 0xfff],
];

test('7: addresses are those of the table of Linux, in both directions', () => {
  const cases = casesOf('address-codec');
  for (const [address, reference, offset] of ADDRESSES) {
    const encoded = cases.find(
      ({ input }) => input['operation'] === 'encode' && input['reference'] === reference,
    );
    assert.deepEqual(encoded?.expected, { address });
    const decoded = cases.find(({ input }) => input['address'] === address && input['length'] === undefined);
    assert.deepEqual(decoded?.expected, { reference, offset });
  }
});

/** Decoding in plain arithmetic: an address is a grant from 2^63 on, 2^44 of them. */
function decoded(address: bigint, length: bigint): object {
  const place = address - 2n ** 63n;
  if (place < 0n) return { refused: 'bit-63-clear' };
  if (place >= 2n ** 44n) return { refused: 'bits-44-62-set' };
  if (length === 0n) return { refused: 'empty' };
  if (place + length > 2n ** 44n) return { refused: 'past-last-reference' };
  const [first, last] = [place / 4096n, (place + length - 1n) / 4096n];
  return {
    reference: Number(first),
    offset: Number(place % 4096n),
    pages: Number(last - first + 1n),
    lastReference: Number(last),
  };
}

for (const { id, input, expected } of casesOf('address-codec'))
  test(`G4 G5 F6: address-codec ${id}`, () => {
    if (input['operation'] === 'encode') {
      const [reference, offset] = [BigInt(Number(input['reference'])), BigInt(Number(input['offset']))];
      if (reference >= 2n ** 32n) assert.deepEqual(expected, { refused: 'reference-past-32-bits' });
      else if (offset >= 4096n) assert.deepEqual(expected, { refused: 'offset-past-page' });
      else assert.equal(BigInt(String(expected['address'])), 2n ** 63n + reference * 4096n + offset);
      return;
    }
    const { length } = input;
    const answer = decoded(BigInt(String(input['address'])), BigInt(Number(length ?? 1)));
    if (length !== undefined || 'refused' in answer) assert.deepEqual(expected, answer);
    else assert.deepEqual({ ...answer, ...expected, pages: 1 }, { ...answer, pages: 1 });
  });

// Offset, size, pages to leave out, pages: Linux 6.1 and later, and what 875553e317b2 says of its trace.
const PAGES: [id: string, offset: number, size: number, pageOffset: number, pages: number][] = [
  ['small-across-pages', 0xff0, 0x20, 0, 2],
  ['last-byte', 0xfff, 1, 0, 1],
  ['last-byte-and-next', 0xfff, 2, 0, 2],
  ['page-from-second-byte', 1, 0x1000, 0, 2],
  ['whole-page', 0, 0x1000, 0, 1],
  ['receive-buffer', 0x3aa8, 0x3a0, 3, 1],
  ['far-and-across', 0x9123, 0x2000, 9, 3],
];

for (const [id, offset, size, pageOffset, pages] of PAGES)
  test(`G1 G2: page-counts ${id} is as in the table`, () => {
    const { input, expected } = caseOf('page-counts', id);
    assert.deepEqual(input, { offset, size });
    assert.deepEqual(expected, { pageOffset, offsetInPage: offset & 0xfff, pages });
  });

test('G1 G2 G3: page counts are the pages of the first byte to the last', () => {
  for (const { id, input, expected } of casesOf('page-counts')) {
    const [offset, size] = [Number(input['offset']), Number(input['size'])];
    const first = Math.floor(offset / 4096);
    const pages = Math.floor((offset + size - 1) / 4096) - first + 1;
    const answer = { pageOffset: first, offsetInPage: offset % 4096, pages };
    assert.deepEqual(expected, size === 0 ? { refused: 'empty' } : answer, id);
  }
});

test('R1: the defects of page counts are told apart by their answers', () => {
  const answers = (id: string) =>
    (caseOf('page-counts', id).wrong ?? []).map(({ by, answer }) => {
      const who = /^(the patch|Linux before e433715b1165|Linux from e433715b1165)/.exec(by)?.[1];
      return `${who}: ${answer['pages']} from page ${answer['pageOffset']}, ${answer['released']} released`;
    });
  assert.deepEqual(answers('receive-buffer'), [
    'the patch: 1 from page 0, 1 released',
    'Linux before e433715b1165: 1 from page 0, 1 released',
    'Linux from e433715b1165: 4 from page 0, 1 released',
  ]);
  assert.deepEqual(answers('small-across-pages'), [
    'the patch: 1 from page 0, 1 released',
    'Linux before e433715b1165: 1 from page 0, 1 released',
  ]);
  assert.deepEqual(answers('page-and-a-byte'), ['the patch: 1 from page 0, 1 released']);
  assert.deepEqual(answers('far-and-across'), [
    'the patch: 1 from page 0, 1 released',
    'Linux before e433715b1165: 2 from page 0, 2 released',
    'Linux from e433715b1165: 12 from page 0, 3 released',
  ]);
  assert.deepEqual(answers('whole-page'), []);
});

// Requester, entries (first, domain, length; the phandle left out), mask, answer: read off Linux's of_map_id(), the
// bindings, and the list of reserved domain ids.
const BACKENDS: Readonly<Record<string, readonly [requester: number, entries: string, answer: string]>> = {
  'one-entry': [8, '8>5*1', '5'],
  'domain-0': [8, '8>0*1', '0'],
  'highest-domain': [8, '8>32751*1', '32751'],
  'highest-requester': [65535, '65535>5*1', '5'],
  'below-the-entry': [7, '8>5*1', 'null'],
  'above-the-entry': [9, '8>5*1', 'null'],
  'second-entry': [9, '8>5*1 9>5*1', '5'],
  'first-of-two-that-have-it': [9, '8>5*2 9>3*1', '6'],
  'empty-entry': [8, '8>5*0', 'null'],
  'length-2-first': [8, '8>5*2', '5'],
  'length-2-second': [9, '8>5*2', '6'],
  'length-8-last': [15, '8>5*8', '12'],
  'whole-bus-from-0': [24, '0>1*65536', '25'],
  'mask-of-functions': [15, '8>5*1 &65528', '5'],
  'mask-keeps-requester': [16, '8>5*1 &65528', 'null'],
  'mask-of-all': [0x1234, '0>5*1 &0', '5'],
  'mask-clears-bits-of-entry': [9, '9>5*1 &65528', 'property'],
  'reserved-domain': [8, '8>32752*1', 'domain'],
  'length-runs-into-reserved': [9, '8>32751*2', 'domain'],
  'domain-above-16-bits': [8, '8>65537*1', 'domain'],
  'length-runs-past-16-bits': [9, '8>65535*2', 'domain'],
  'no-such-node': [8, '8>5*1', 'node'],
  'node-of-another-kind': [8, '8>5*1', 'node'],
  'node-with-two-cells': [8, '8>5*1', 'node'],
  'node-without-cells': [8, '8>5*1', 'node'],
  'entry-of-three-cells': [8, '', 'property'],
  'no-entries': [8, '', 'property'],
};

test('G24: each iommu-map leads to the domain that Linux finds, or is refused', () => {
  const seen = casesOf('iommu-map').map(({ id, input, expected }) => {
    const cells = (input['iommuMap'] as readonly number[]).slice();
    const entries: string[] = [];
    while (cells.length >= 4) {
      const [first, , domain, length] = cells.splice(0, 4);
      entries.push(`${first}>${domain}*${length}`);
    }
    if (input['mask'] !== null) entries.push(`&${input['mask']}`);
    return [id, [input['requester'], entries.join(' '), String(expected['refused'] ?? expected['backend'])]];
  });
  assert.deepEqual(Object.fromEntries(seen), BACKENDS);
});

// Size, and each field's name, offset and size, as a C compiler gives them for the headers of Xen c447b7308b and of
// Linux 6.1 on x86-64; virtio_blk_config goes on as in virtio 1.3 §5.2.4.
const LAYOUTS: Readonly<Record<string, string>> = {
  grant_entry_v1: '8: flags@0+2 domid@2+2 frame@4+4',
  'grant_entry_v2-full_page': '16: flags@0+2 domid@2+2 frame@8+8',
  'grant_entry_v2-sub_page': '16: flags@0+2 domid@2+2 page_off@4+2 length@6+2 frame@8+8',
  'grant_entry_v2-transitive': '16: flags@0+2 domid@2+2 trans_domid@4+2 gref@8+4',
  gnttab_map_grant_ref:
    '32: host_addr@0+8 flags@8+4 ref@12+4 dom@16+2 status@18+2 handle@20+4 dev_bus_addr@24+8',
  gnttab_unmap_grant_ref: '24: host_addr@0+8 dev_bus_addr@8+8 handle@16+4 status@20+2',
  gnttab_unmap_and_replace: '24: host_addr@0+8 new_addr@8+8 handle@16+4 status@20+2',
  gnttab_setup_table: '24: dom@0+2 nr_frames@4+4 status@8+2 frame_list@16+8',
  gnttab_transfer: '24: mfn@0+8 domid@8+2 ref@12+4 status@16+2',
  gnttab_copy:
    '40: source.u@0+8 source.domid@8+2 source.offset@10+2 dest.u@16+8 dest.domid@24+2 dest.offset@26+2 len@32+2 flags@34+2 status@36+2',
  gnttab_query_size: '16: dom@0+2 nr_frames@4+4 max_nr_frames@8+4 status@12+2',
  gnttab_set_version: '4: version@0+4',
  gnttab_get_status_frames: '16: nr_frames@0+4 dom@4+2 status@6+2 frame_list@8+8',
  gnttab_get_version: '8: dom@0+2 version@4+4',
  gnttab_swap_grant_ref: '12: ref_a@0+4 ref_b@4+4 status@8+2',
  gnttab_cache_flush: '16: a@0+8 offset@8+2 length@10+2 op@12+4',
  ioreq: '32: addr@0+8 data@8+8 count@16+4 size@20+4 vp_eport@24+4 state_dir@30+1 type@31+1',
  xsd_sockmsg: '16: type@0+4 req_id@4+4 tx_id@8+4 len@12+4',
  xenstore_domain_interface:
    '2080: req@0+1024 rsp@1024+1024 req_cons@2048+4 req_prod@2052+4 rsp_cons@2056+4 rsp_prod@2060+4 server_features@2064+4 connection@2068+4 error@2072+4 evtchn_port@2076+4',
  virtq_desc: '16: addr@0+8 len@8+4 flags@12+2 next@14+2',
  virtq_used_elem: '8: id@0+4 len@4+4',
  virtio_blk_config:
    '96: capacity@0+8 size_max@8+4 seg_max@12+4 cylinders@16+2 heads@18+1 sectors@19+1 blk_size@20+4 physical_block_exp@24+1 alignment_offset@25+1 min_io_size@26+2 opt_io_size@28+4 writeback@32+1 num_queues@34+2 max_discard_sectors@36+4 max_discard_seg@40+4 discard_sector_alignment@44+4 max_write_zeroes_sectors@48+4 max_write_zeroes_seg@52+4 write_zeroes_may_unmap@56+1 max_secure_erase_sectors@60+4 max_secure_erase_seg@64+4 secure_erase_sector_alignment@68+4 zone_sectors@72+4 max_open_zones@76+4 max_active_zones@80+4 max_append_sectors@84+4 write_granularity@88+4 model@92+1',
  virtio_blk_req: '16: type@0+4 sector@8+8',
  virtio_blk_discard_write_zeroes: '16: sector@0+8 num_sectors@8+4 flags@12+4',
  'vhost_user_memory_region-with-XEN_MMAP':
    '40: guest_address@0+8 size@8+8 user_address@16+8 mmap_offset@24+8 xen_mmap_flags@32+4 domid@36+4',
};

/** Fields that a header declares as int16_t, and those that it declares as arrays of char. */
const SIGNED = /^status$/;
const BYTES = /^(req|rsp)$/;

test('structs have the sizes and offsets that a C compiler gives for the headers', () => {
  const seen = casesOf('struct-layouts').map(({ id, expected }) => {
    const fields = expected['fields'] as readonly {
      name: string;
      offset: number;
      size: number;
      type: string;
    }[];
    for (const { name, type } of fields)
      assert.equal(
        type,
        SIGNED.test(name) ? 'signed' : BYTES.test(name) ? 'bytes' : 'unsigned',
        `${id} ${name}`,
      );
    const listed = fields.map(({ name, offset, size }) => `${name}@${offset}+${size}`);
    return [id, `${expected['size']}: ${listed.join(' ')}`];
  });
  assert.deepEqual(Object.fromEntries(seen), LAYOUTS);
});

// Flags and domain as they end the 40 bytes, and the answer, by the text of vhost-user and vm-memory's flags.
const REGIONS: Readonly<Record<string, readonly [end: string, answer: string]>> = {
  foreign: ['0100000002000000', 'foreign, in advance'],
  'grant-in-advance': ['0200000002000000', 'grant, in advance'],
  'grant-when-used': ['0a00000002000000', 'grant, when used'],
  file: ['0000000000000000', 'file, in advance'],
  'highest-domain': ['0a000000ef7f0000', 'grant, when used'],
  'grant-with-bit-8': ['0201000002000000', 'bit-8'],
  'grant-with-both': ['0a01000002000000', 'bit-8'],
  'foreign-and-grant': ['0300000002000000', 'foreign-and-grant'],
  'foreign-when-used': ['0900000002000000', 'no-advance-without-grant'],
  'file-when-used': ['0800000000000000', 'no-advance-without-grant'],
  'unknown-flag': ['0600000002000000', 'unknown-bits'],
  'unknown-high-flag': ['0200008002000000', 'unknown-bits'],
};
const STARTS = {
  // 0x40000000, 0x10000000, 0x40000000, 0: eight bytes each, lowest first.
  memory: '0000004000000000' + '0000001000000000' + '0000004000000000' + '0000000000000000',
  // 1 << 63, 1 << 44, 1 << 63, 0.
  window: '0000000000000080' + '0000000000100000' + '0000000000000080' + '0000000000000000',
};

test('regions of XEN_MMAP are 40 bytes, and 0x8, not 0x100, is "not in advance"', () => {
  const seen = casesOf('xen-mmap-regions').map(({ id, input, expected }) => {
    const isWindow = input['guestAddress'] === '0x8000000000000000';
    const bytes = String(expected['bytes']);
    assert.equal(bytes.slice(0, 64), isWindow ? STARTS.window : STARTS.memory, id);
    const mapping = `${expected['kind']}, ${expected['inAdvance'] ? 'in advance' : 'when used'}`;
    return [id, [bytes.slice(64), String(expected['refused'] ?? mapping)]];
  });
  assert.deepEqual(Object.fromEntries(seen), REGIONS);
  assert.match(String(caseOf('xen-mmap-regions', 'grant-with-bit-8').expected['diagnosis']), /"Bit 8".*0x8/);
});
