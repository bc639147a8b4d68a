// Numbers every virtio device shares: status bits (virtio 1.3 §2.1), feature bits (§6), device ids (§5).

export const VIRTIO_STATUS_ACKNOWLEDGE = 1;
export const VIRTIO_STATUS_DRIVER = 2;
export const VIRTIO_STATUS_DRIVER_OK = 4;
export const VIRTIO_STATUS_FEATURES_OK = 8;
export const VIRTIO_STATUS_DEVICE_NEEDS_RESET = 64;
export const VIRTIO_STATUS_FAILED = 128;

/** A feature bit as a mask; feature sets are bigints. */
const bit = (number: number): bigint => 1n << BigInt(number);

export const VIRTIO_F_INDIRECT_DESC = bit(28);
export const VIRTIO_F_EVENT_IDX = bit(29);
export const VIRTIO_F_VERSION_1 = bit(32);
/** The device reaches memory only through addresses that the platform hands out: here, grants. */
export const VIRTIO_F_ACCESS_PLATFORM = bit(33);
export const VIRTIO_F_RING_RESET = bit(40);

export const VIRTIO_ID_BLOCK = 2;
export const VIRTIO_ID_CONSOLE = 3;
export const VIRTIO_ID_RNG = 4;
