// One turn of a device at one of its queues, the same for every transport. After device-state.ts and
// transports/vhost-user/, before virtqueue/device-queue.ts and devices/.

import type { DeviceQueue } from '../virtqueue/device-queue.ts';
import type { VirtioDevice } from './device.ts';

/** Chains served in one turn before others get theirs (case F25); each 256 KiB of buffers count as one more. */
export const TURN = 64;
const BYTES_THAT_COUNT = 256 * 1024;

/**
 * Serves what queue `index` of `device` has to offer, for at most `turn`. Notifications stay as they are.
 *
 * @param interrupt tells the driver that something was completed
 * @returns what is left of the turn: `turn` when there was nothing to do, 0 when others are to have theirs
 * @throws ProtocolViolation when the driver breaks a rule
 */
export function serveAvailable(
  device: VirtioDevice,
  queue: DeviceQueue,
  index: number,
  interrupt: () => void,
  turn = TURN,
): number {
  let left = turn;
  for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
    device.handle(queue, chain, index);
    if (queue.takeInterrupt()) interrupt();
    left -= 1 + Math.floor(chain.byteLength / BYTES_THAT_COUNT);
    if (left <= 0) return 0;
  }
  return left;
}

/**
 * Serves queue `index` of `device` until it is empty, and asks for a notification of the next chain; or until a turn
 * is over.
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
    left = serveAvailable(device, queue, index, interrupt, left);
    if (left === 0) return true;
    // A driver that moves its index to and fro makes this loop end as well.
  } while (queue.enableNotifications() && --left > 0);
  return left === 0;
}
