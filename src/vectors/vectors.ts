// `grantio/vectors`: the conformance vectors, for tests of other implementations (docs/vectors.md). The same as
// JSON, for any language: grantio/vectors/<group>.json, made from here by scripts/vectors.mjs.

import { addressCodec } from './address-codec.ts';
import { iommuMap } from './iommu-map.ts';
import { pageCounts } from './page-counts.ts';
import { structLayouts } from './struct-layouts.ts';
import { xenMmapRegions } from './xen-mmap-regions.ts';

export type { AddressVector } from './address-codec.ts';
export type { IommuMapVector } from './iommu-map.ts';
export type { PageCountVector } from './page-counts.ts';
export type { LayoutVector } from './struct-layouts.ts';
export type { Refused, Vector, VectorGroup, WrongAnswer } from './vector.ts';
export type { RegionVector } from './xen-mmap-regions.ts';

/** All groups of vectors, by what they are about. */
export const vectors = { addressCodec, pageCounts, iommuMap, structLayouts, xenMmapRegions } as const;
