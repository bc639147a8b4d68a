// Has a guest not see features that its device offers, so that they are not negotiated.

import { MMIO_DEVICE_FEATURES, MMIO_DEVICE_FEATURES_SEL } from '../../src/abi/virtio-mmio.ts';
import type { GuestDomain } from '../../src/machine/guest-domain.ts';

/** Hides `features` of the device at `base`. */
export function hideFeatures(guest: GuestDomain, base: number, features: bigint): void {
  const { mmio } = guest.ports;
  const read = mmio.read.bind(mmio);
  const write = mmio.write.bind(mmio);
  let word = 0;
  mmio.write = (address, size, value) => {
    if (address === base + MMIO_DEVICE_FEATURES_SEL) word = value;
    write(address, size, value);
  };
  mmio.read = (address, size) => {
    const value = read(address, size);
    if (address !== base + MMIO_DEVICE_FEATURES) return value;
    return Number(BigInt(value >>> 0) & ~(features >> BigInt(32 * word)));
  };
}
