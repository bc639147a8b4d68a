// Kinds of virtio devices by their ids (virtio 1.3 §5), and the queues that a device of each kind commonly has:
// for telling a decimal id from a hexadecimal one, and for counting grants.

/** A kind of device. */
interface VirtioKind {
  readonly name: string;
  /** Queues with the features that drivers commonly take. */
  readonly queues: number;
}

const kind = (name: string, queues = 1): VirtioKind => ({ name, queues });

/** The kinds with an assigned id. */
export const VIRTIO_KINDS: ReadonlyMap<number, VirtioKind> = new Map([
  [1, kind('network card', 3)],
  [2, kind('block device')],
  [3, kind('console', 2)],
  [4, kind('entropy source')],
  [5, kind('memory balloon (traditional)', 3)],
  [6, kind('ioMemory')],
  [7, kind('rpmsg', 2)],
  [8, kind('SCSI host', 3)],
  [9, kind('9P transport')],
  [10, kind('mac80211 wlan', 2)],
  [11, kind('rproc serial', 2)],
  [12, kind('virtio CAIF', 2)],
  [13, kind('memory balloon', 2)],
  [16, kind('GPU', 2)],
  [17, kind('timer')],
  [18, kind('input device', 2)],
  [19, kind('socket device', 3)],
  [20, kind('crypto device', 2)],
  [21, kind('signal distribution module')],
  [22, kind('pstore device')],
  [23, kind('IOMMU', 2)],
  [24, kind('memory device')],
  [25, kind('sound device', 4)],
  [26, kind('file system', 2)],
  [27, kind('persistent memory')],
  [28, kind('RPMB device')],
  [29, kind('mac80211 hwsim', 2)],
  [30, kind('video encoder', 2)],
  [31, kind('video decoder', 2)],
  [32, kind('SCMI device', 2)],
  [33, kind('NitroSecureModule')],
  [34, kind('I2C adapter')],
  [35, kind('watchdog')],
  [36, kind('CAN device', 3)],
  [38, kind('parameter server')],
  [39, kind('audio policy device')],
  [40, kind('Bluetooth device', 2)],
  [41, kind('GPIO device', 2)],
  [42, kind('RDMA device')],
  [43, kind('camera', 2)],
  [44, kind('ISM device')],
  [45, kind('SPI controller')],
]);
