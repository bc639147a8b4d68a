// Vectors: where the fields of Xen's and virtio's structures lie.

import * as grant from '../abi/grant.ts';
import * as op from '../abi/grant-table-op.ts';
import { ioreq } from '../abi/ioreq.ts';
import { virtqDesc, virtqUsedElem } from '../abi/split-ring.ts';
import type { FieldKind, FieldLayout } from '../abi/struct.ts';
import { vhostUserXenRegion } from '../abi/vhost-user-xen.ts';
import * as blk from '../abi/virtio-blk.ts';
import { xenstoreDomainInterface, xsdSockmsg } from '../abi/xenstore.ts';
import type { Vector, VectorGroup } from './vector.ts';

interface Field {
  readonly name: string;
  /** Bytes from the start. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  readonly type: 'unsigned' | 'signed' | 'bytes';
}

interface Layout {
  /** Bytes. */
  readonly size: number;
  readonly fields: readonly Field[];
}

export type LayoutVector = Vector<{ readonly struct: string }, Layout>;

/** What the vectors need of a declared struct. */
interface Declared {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly FieldLayout[];
}

function typeOf(kind: FieldKind): Field['type'] {
  if (typeof kind === 'object') return 'bytes';
  return kind.startsWith('i') ? 'signed' : 'unsigned';
}

/** Padding has no name in the headers, or none that they agree on: it is what no field covers. */
const isPadding = ({ name }: FieldLayout): boolean => /^(_pad|unused|reserved)/.test(name);

function vector(source: string, { name, size, fields }: Declared): LayoutVector {
  return {
    id: name.replaceAll(' ', '-'),
    source,
    input: { struct: name },
    expected: {
      size,
      fields: fields
        .filter((field) => !isPadding(field))
        .map((field) => ({
          // The header nests what lies in gnttab_copy.source and .dest.
          name: field.name.replace(/^(source|dest)_/, '$1.'),
          offset: field.offset,
          size: field.size,
          type: typeOf(field.kind),
        })),
    },
  };
}

const GRANTS = 'Xen, public/grant_table.h, with 64-bit pointers';
const STORE = 'Xen, public/io/xs_wire.h';

/** The group. */
export const structLayouts: VectorGroup<LayoutVector> = {
  group: 'struct-layouts',
  format: 1,
  about:
    'Size and fields of structures, all little endian, with pointers and handles of 64 bits. Offsets and sizes are bytes. Bytes that no field covers are padding. ioreq.state_dir is a byte of bit fields: state 0x0f, data_is_ptr 0x10, dir 0x20 (set: read), df 0x40. gnttab_copy.source.u and .dest.u are a reference of 4 bytes, or a frame number of 8.',
  vectors: [
    vector(GRANTS, grant.grantEntryV1),
    vector(GRANTS, grant.grantEntryV2Full),
    vector(GRANTS, grant.grantEntryV2Sub),
    vector(GRANTS, grant.grantEntryV2Transitive),
    vector(GRANTS, op.gnttabMapGrantRef),
    vector(GRANTS, op.gnttabUnmapGrantRef),
    vector(GRANTS, op.gnttabUnmapAndReplace),
    vector(GRANTS, op.gnttabSetupTable),
    vector(GRANTS, op.gnttabTransfer),
    vector(GRANTS, op.gnttabCopy),
    vector(GRANTS, op.gnttabQuerySize),
    vector(GRANTS, op.gnttabSetVersion),
    vector(GRANTS, op.gnttabGetStatusFrames),
    vector(GRANTS, op.gnttabGetVersion),
    vector(GRANTS, op.gnttabSwapGrantRef),
    vector(GRANTS, op.gnttabCacheFlush),
    vector('Xen, public/hvm/ioreq.h', ioreq),
    vector(STORE, xsdSockmsg),
    vector(STORE, xenstoreDomainInterface),
    vector('virtio 1.3 §2.7.5', virtqDesc),
    vector('virtio 1.3 §2.7.8', virtqUsedElem),
    vector('virtio 1.3 §5.2.4', blk.virtioBlkConfig),
    vector('virtio 1.3 §5.2.6', blk.virtioBlkRequestHeader),
    vector('virtio 1.3 §5.2.6', blk.virtioBlkRange),
    vector('QEMU, docs/interop/vhost-user.rst, "Memory region description"', vhostUserXenRegion),
  ],
};
