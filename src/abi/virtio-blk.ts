// Block device: configuration space, request header and segments (virtio 1.3 §5.2).

import { struct } from './struct.ts';

const bit = (number: number): bigint => 1n << BigInt(number);

export const VIRTIO_BLK_F_SIZE_MAX = bit(1);
export const VIRTIO_BLK_F_SEG_MAX = bit(2);
export const VIRTIO_BLK_F_RO = bit(5);
export const VIRTIO_BLK_F_BLK_SIZE = bit(6);
export const VIRTIO_BLK_F_FLUSH = bit(9);
export const VIRTIO_BLK_F_MQ = bit(12);
export const VIRTIO_BLK_F_DISCARD = bit(13);
export const VIRTIO_BLK_F_WRITE_ZEROES = bit(14);

/** §5.2.4 Configuration space, whole, in the specification's order. */
export const virtioBlkConfig = struct('virtio_blk_config', {
  capacity: 'u64',
  size_max: 'u32',
  seg_max: 'u32',
  cylinders: 'u16',
  heads: 'u8',
  sectors: 'u8',
  blk_size: 'u32',
  physical_block_exp: 'u8',
  alignment_offset: 'u8',
  min_io_size: 'u16',
  opt_io_size: 'u32',
  writeback: 'u8',
  unused0: 'u8',
  num_queues: 'u16',
  max_discard_sectors: 'u32',
  max_discard_seg: 'u32',
  discard_sector_alignment: 'u32',
  max_write_zeroes_sectors: 'u32',
  max_write_zeroes_seg: 'u32',
  write_zeroes_may_unmap: 'u8',
  unused1: { bytes: 3 },
  max_secure_erase_sectors: 'u32',
  max_secure_erase_seg: 'u32',
  secure_erase_sector_alignment: 'u32',
  zone_sectors: 'u32',
  max_open_zones: 'u32',
  max_active_zones: 'u32',
  max_append_sectors: 'u32',
  write_granularity: 'u32',
  model: 'u8',
  unused2: { bytes: 3 },
});

/** §5.2.6 What every request starts with; data and one status byte follow. */
export const virtioBlkRequestHeader = struct('virtio_blk_req', {
  type: 'u32',
  reserved: 'u32',
  sector: 'u64',
});

/** §5.2.6 A range of a discard or write zeroes request. `flags` bit 0 is unmap. */
export const virtioBlkRange = struct('virtio_blk_discard_write_zeroes', {
  sector: 'u64',
  num_sectors: 'u32',
  flags: 'u32',
});

export const VIRTIO_BLK_T_IN = 0;
export const VIRTIO_BLK_T_OUT = 1;
export const VIRTIO_BLK_T_FLUSH = 4;
export const VIRTIO_BLK_T_GET_ID = 8;
export const VIRTIO_BLK_T_DISCARD = 11;
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;

export const VIRTIO_BLK_S_OK = 0;
export const VIRTIO_BLK_S_IOERR = 1;
export const VIRTIO_BLK_S_UNSUPP = 2;

export const VIRTIO_BLK_RANGE_F_UNMAP = 1;

/** Bytes of a sector, the unit of the protocol whatever blk_size says (§5.2.4). */
export const SECTOR_SIZE = 512;
/** Bytes of the answer to VIRTIO_BLK_T_GET_ID (§5.2.6). */
export const VIRTIO_BLK_ID_BYTES = 20;
