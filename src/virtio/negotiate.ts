// The driver's side of initialisation up to FEATURES_OK (virtio 1.3 §3.1.1), with the check that makes
// memory access restricted: a device that would bypass the platform's addresses is refused, never served
// with plain ones (case G21; Linux virtio_features_ok).

import {
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
} from '../abi/virtio.ts';
import type { DriverTransport } from './transport.ts';

/** The driver does not work with this device; it has been told so (FAILED). */
export class DeviceRefused extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'DeviceRefused';
  }
}

/** Why a device that offers `features` may not be used with restricted memory access; undefined if it may. */
export function restrictedAccessFault(features: bigint): string | undefined {
  if ((features & VIRTIO_F_VERSION_1) === 0n) return 'device must provide VIRTIO_F_VERSION_1';
  if ((features & VIRTIO_F_ACCESS_PLATFORM) === 0n) return 'device must provide VIRTIO_F_ACCESS_PLATFORM';
  return undefined;
}

/**
 * Resets the device and agrees on features; the device is then ready for its queues and DRIVER_OK.
 *
 * @param supported features that the driver can use; VERSION_1 and ACCESS_PLATFORM are added where they apply
 * @param restricted whether the driver must hand out platform addresses only
 * @returns the negotiated features
 * @throws DeviceRefused when the device is of another kind, or cannot be used safely
 */
export function negotiate(
  transport: DriverTransport,
  deviceId: number,
  supported: bigint,
  restricted: boolean,
): bigint {
  if (transport.deviceId !== deviceId)
    throw new DeviceRefused(`expected a virtio device of type ${deviceId}, found type ${transport.deviceId}`);
  transport.writeStatus(0);
  if (transport.readStatus() !== 0) throw new DeviceRefused('the device does not finish its reset (§2.4.2)');
  transport.writeStatus(VIRTIO_STATUS_ACKNOWLEDGE);
  transport.writeStatus(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
  const offered = transport.readFeatures();
  const fault = restricted ? restrictedAccessFault(offered) : undefined;
  if (fault !== undefined) throw refuse(transport, fault);
  if ((offered & VIRTIO_F_VERSION_1) === 0n)
    throw refuse(transport, 'device must provide VIRTIO_F_VERSION_1');
  const features = offered & (supported | VIRTIO_F_VERSION_1 | (restricted ? VIRTIO_F_ACCESS_PLATFORM : 0n));
  transport.writeFeatures(features);
  transport.writeStatus(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
  if ((transport.readStatus() & VIRTIO_STATUS_FEATURES_OK) === 0)
    throw refuse(transport, `the device does not accept the features 0x${features.toString(16)}`);
  return features;
}

function refuse(transport: DriverTransport, reason: string): DeviceRefused {
  transport.writeStatus(transport.readStatus() | VIRTIO_STATUS_FAILED);
  return new DeviceRefused(reason);
}
