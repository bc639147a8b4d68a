// The vhost-user protocol: messages between a virtual machine monitor (frontend) and the program that serves
// a device (backend) over a Unix socket. Numbers and layouts of QEMU, docs/interop/vhost-user.rst, in its order.
// Used by transports/vhost-user/.

import { struct } from './struct.ts';

/** Every message begins with it. */
export const vhostUserHeader = struct('vhost_user_msg', {
  request: 'u32',
  flags: 'u32',
  size: 'u32',
});

/** Bits 0-1 of the flags: the protocol's version. */
export const VHOST_USER_VERSION = 1;
export const VHOST_USER_VERSION_MASK = 0x3;
/** The message answers a request. */
export const VHOST_USER_REPLY = 0x4;
/** The sender wants an answer even where there would be none. */
export const VHOST_USER_NEED_REPLY = 0x8;

/** Most file descriptors that a message carries (VHOST_USER_MAX_FDS in the implementations). */
export const VHOST_USER_MAX_FDS = 8;
/** Regions of a memory table, and memory slots unless CONFIGURE_MEM_SLOTS says otherwise. */
export const VHOST_USER_MAX_REGIONS = 8;
/** Most bytes of configuration space in one message. */
export const VHOST_USER_MAX_CONFIG_SIZE = 256;

// Requests of the frontend.
export const VHOST_USER_GET_FEATURES = 1;
export const VHOST_USER_SET_FEATURES = 2;
export const VHOST_USER_SET_OWNER = 3;
export const VHOST_USER_RESET_OWNER = 4;
export const VHOST_USER_SET_MEM_TABLE = 5;
export const VHOST_USER_SET_LOG_BASE = 6;
export const VHOST_USER_SET_LOG_FD = 7;
export const VHOST_USER_SET_VRING_NUM = 8;
export const VHOST_USER_SET_VRING_ADDR = 9;
export const VHOST_USER_SET_VRING_BASE = 10;
export const VHOST_USER_GET_VRING_BASE = 11;
export const VHOST_USER_SET_VRING_KICK = 12;
export const VHOST_USER_SET_VRING_CALL = 13;
export const VHOST_USER_SET_VRING_ERR = 14;
export const VHOST_USER_GET_PROTOCOL_FEATURES = 15;
export const VHOST_USER_SET_PROTOCOL_FEATURES = 16;
export const VHOST_USER_GET_QUEUE_NUM = 17;
export const VHOST_USER_SET_VRING_ENABLE = 18;
export const VHOST_USER_SET_BACKEND_REQ_FD = 21;
export const VHOST_USER_IOTLB_MSG = 22;
export const VHOST_USER_GET_CONFIG = 24;
export const VHOST_USER_SET_CONFIG = 25;
export const VHOST_USER_GET_INFLIGHT_FD = 31;
export const VHOST_USER_SET_INFLIGHT_FD = 32;
export const VHOST_USER_RESET_DEVICE = 34;
export const VHOST_USER_VRING_KICK = 35;
export const VHOST_USER_GET_MAX_MEM_SLOTS = 36;
export const VHOST_USER_ADD_MEM_REG = 37;
export const VHOST_USER_REM_MEM_REG = 38;
export const VHOST_USER_SET_STATUS = 39;
export const VHOST_USER_GET_STATUS = 40;

// Requests of the backend, on a socket of their own.
export const VHOST_USER_BACKEND_IOTLB_MSG = 1;
export const VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2;
export const VHOST_USER_BACKEND_VRING_CALL = 4;
export const VHOST_USER_BACKEND_VRING_ERR = 5;

// Feature bits of the virtio features that only vhost-user has a meaning for.
export const VHOST_F_LOG_ALL = 1n << 26n;
export const VHOST_USER_F_PROTOCOL_FEATURES = 1n << 30n;

// Protocol features, as masks.
export const VHOST_USER_PROTOCOL_F_MQ = 1n << 0n;
export const VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1n << 1n;
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 1n << 3n;
export const VHOST_USER_PROTOCOL_F_BACKEND_REQ = 1n << 5n;
export const VHOST_USER_PROTOCOL_F_CONFIG = 1n << 9n;
export const VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 1n << 10n;
export const VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 1n << 12n;
export const VHOST_USER_PROTOCOL_F_RESET_DEVICE = 1n << 13n;
export const VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 1n << 14n;
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 1n << 15n;
export const VHOST_USER_PROTOCOL_F_STATUS = 1n << 16n;

/** One number, of features or another value. */
export const vhostUserU64 = struct('vhost_user u64', { value: 'bits64' });

/** A ring and a value for it. */
export const vhostUserVringState = struct('vhost_vring_state', { index: 'u32', num: 'u32' });

/** Where a ring lies, in the frontend's own addresses. */
export const vhostUserVringAddr = struct('vhost_vring_addr', {
  index: 'u32',
  flags: 'u32',
  descriptor: 'addr64',
  used: 'addr64',
  available: 'addr64',
  log: 'addr64',
});

/** Flag of `vhostUserVringAddr`: writes to the used ring are logged at `log`. */
export const VHOST_VRING_F_LOG = 0x1;

/** Before the regions of a memory table. */
export const vhostUserMemoryHeader = struct('vhost_user_memory', { regions: 'u32', padding: 'u32' });

/** One region of the guest's memory; a file descriptor comes with it. */
export const vhostUserMemoryRegion = struct('vhost_user_memory_region', {
  guest_address: 'addr64',
  size: 'u64',
  user_address: 'addr64',
  mmap_offset: 'u64',
});

/** Before a single region (ADD_MEM_REG, REM_MEM_REG). */
export const vhostUserSingleRegionHeader = struct('vhost_user_mem_reg_msg', { padding: 'u64' });

/** Before a piece of configuration space. */
export const vhostUserConfigHeader = struct('vhost_user_config', {
  offset: 'u32',
  size: 'u32',
  flags: 'u32',
});

/** The dirty log of a live migration. */
export const vhostUserLog = struct('vhost_user_log', { mmap_size: 'u64', mmap_offset: 'u64' });

/** A buffer that survives the backend and tells its successor what was under way. */
export const vhostUserInflight = struct('vhost_user_inflight', {
  mmap_size: 'u64',
  mmap_offset: 'u64',
  num_queues: 'u16',
  queue_size: 'u16',
});

/** One translation of the guest's IOMMU. */
export const vhostUserIotlb = struct('vhost_iotlb_msg', {
  iova: 'addr64',
  size: 'u64',
  user_address: 'addr64',
  permission: 'u8',
  type: 'u8',
  padding: { bytes: 6 },
});

// `permission` of a translation.
export const VHOST_ACCESS_RO = 1;
export const VHOST_ACCESS_WO = 2;
export const VHOST_ACCESS_RW = 3;

// `type` of a translation.
export const VHOST_IOTLB_MISS = 1;
export const VHOST_IOTLB_UPDATE = 2;
export const VHOST_IOTLB_INVALIDATE = 3;
export const VHOST_IOTLB_ACCESS_FAIL = 4;

/** Bit of a number that names a ring: no file descriptor comes with the message. */
export const VHOST_USER_VRING_NOFD = 0x100n;
export const VHOST_USER_VRING_INDEX_MASK = 0xffn;
