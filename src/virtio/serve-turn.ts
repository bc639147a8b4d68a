// One turn of a device at one of its queues, the same for every transport. After device-state.ts and
// transports/vhost-user/, before virtqueue/device-queue.ts and devices/.

import type { DeviceQueue } from '../virtqueue/device-queue.ts';
import type { VirtioDevice } from './device.ts';

/** Chains served in one turn before others get theirs (case F25); each 256 KiB of buffers count as one more. */
const TURN = 64;
const BYTES_THAT_COUNT = 256 * 1024;

/**
 * Serves queue `index` of `device` until it is empty or a turn is over.
 *
 * @param interrupt tells the driver that something was completed
 * @returns whether more is waiting: call again when others have had their turn
 * @throws ProtocolViolation when the driver breaks a rule
 */
export function serveTurn(
  device: VirtioDevice,
  queue: DeviceQueue,
  index: number,
  interrupt: () => void,
): boolean {
  queue.disableNotifications();
  let left = TURN;
  do {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      device.handle(queue, chain, index);
      if (queue.takeInterrupt()) interrupt();
      left -= 1 + Math.floor(chain.byteLength / BYTES_THAT_COUNT);
      if (left <= 0) return true;
    }
    // A driver that moves its index to and fro makes this loop end as well.
  } while (queue.enableNotifications() && --left > 0);
  return left <= 0;
}
