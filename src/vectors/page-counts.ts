// Vectors: which pages of 4 KiB a buffer touches, and so how many grants it needs.

import { pagesTouched } from '../abi/grant-address.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import type { Refused, Vector, VectorGroup } from './vector.ts';

interface Buffer {
  /** Bytes from the start of the first page that the caller names; may be past that page. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

interface Pages {
  /** Pages before the first one that is granted. */
  readonly pageOffset: number;
  /** In the first page that is granted: the low 12 bits of the DMA address. */
  readonly offsetInPage: number;
  readonly pages: number;
}

interface WrongPages {
  readonly pageOffset: number;
  readonly pages: number;
  /** Grants that the same code ends when the buffer is unmapped. */
  readonly released: number;
}

export type PageCountVector = Vector<Buffer, Pages | Refused<'empty'>, WrongPages>;

const pageOf = (offset: number): number => Math.floor(offset / XEN_PAGE_SIZE);
const pagesOf = (size: number): number => Math.ceil(size / XEN_PAGE_SIZE);

/** Earlier ways to count, as the source of each had them. All begin at the first page of the caller. */
const defects: readonly { by: string; count(buffer: Buffer): Omit<WrongPages, 'pageOffset'> }[] = [
  {
    by: 'the patch of April 2022: one page, whatever the buffer',
    count: () => ({ pages: 1, released: 1 }),
  },
  {
    by: 'Linux before e433715b1165: the offset is not counted',
    count: ({ size }) => ({ pages: pagesOf(size), released: pagesOf(size) }),
  },
  {
    by: 'Linux from e433715b1165 to before 875553e317b2: pages before the buffer are granted as well, and not released',
    count: ({ offset, size }) => ({
      pages: pagesOf(offset + size),
      released: pagesOf((offset % XEN_PAGE_SIZE) + size),
    }),
  },
];

function vector(id: string, source: string, offset: number, size: number): PageCountVector {
  const input = { offset, size };
  if (size === 0) return { id, source, input, expected: { refused: 'empty' } };
  const pages = pagesTouched(offset, size);
  const pageOffset = pageOf(offset);
  const expected = { pageOffset, offsetInPage: offset % XEN_PAGE_SIZE, pages };
  const wrong = defects
    .map(({ by, count }) => ({ by, answer: { pageOffset: 0, ...count(input) } }))
    .filter(({ answer }) => answer.pages !== pages || answer.released !== pages || pageOffset !== 0);
  return wrong.length === 0 ? { id, source, input, expected } : { id, source, input, expected, wrong };
}

const RULE =
  'Linux, drivers/xen/grant-dma-ops.c since 6.1: XEN_PFN_UP(offset in page + size), XEN_PFN_DOWN(offset)';
const CROSSING = 'Linux e433715b1165, virtio-disk 274f5e9: a buffer smaller than a page may touch two';
const FAR = 'Linux 875553e317b2: an offset of more than a page is pages to leave out, and the rest';

/** The group. */
export const pageCounts: VectorGroup<PageCountVector> = {
  group: 'page-counts',
  format: 1,
  about:
    'A buffer of size bytes starts offset bytes after the start of a page. Grants are of 4 KiB whatever the page size of the kernel, and only pages that hold bytes of the buffer are granted: pages of them, after leaving out pageOffset. The DMA address has offsetInPage. Unmapping releases the same number.',
  vectors: [
    vector('one-byte', RULE, 0, 1),
    vector('whole-page', RULE, 0, 0x1000),
    vector('page-and-a-byte', RULE, 0, 0x1001),
    vector('last-byte', RULE, 0xfff, 1),
    vector('last-byte-and-next', CROSSING, 0xfff, 2),
    vector('small-across-pages', CROSSING, 0xff0, 0x20),
    vector('page-from-second-byte', CROSSING, 1, 0x1000),
    vector('two-pages-across-three', CROSSING, 0x123, 0x2000),
    vector('offset-of-one-page', FAR, 0x1000, 1),
    vector('receive-buffer', `${FAR}; a receive buffer of virtio-net, from the thread`, 0x3aa8, 0x3a0),
    vector('far-and-across', FAR, 0x9123, 0x2000),
    vector('64-kib-page-last-byte', `${FAR}; the last byte of a kernel's page of 64 KiB`, 0xffff, 1),
    vector('64-kib-page', "Linux a383dcb1cca8: a kernel's page of 64 KiB is 16 grants", 0, 0x10000),
    vector(
      'longest-descriptor',
      'virtio 1.3 §2.7.5: the length of a descriptor is a le32',
      0xfff,
      0xffffffff,
    ),
    vector(
      'empty',
      'by its source, Linux asks for 0 consecutive references and damages its free list',
      0x10,
      0,
    ),
  ],
};
