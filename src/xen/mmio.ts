// Port: a guest's access to a device's registers, which on a real machine is a load or store that traps.

/** Guest-physical device registers. All accesses are naturally aligned, of 1, 2 or 4 bytes. */
export interface MmioBus {
  /** Reads `size` bytes at the guest-physical `address`, little endian. */
  read(address: number, size: number): number;
  /** Writes `size` bytes. */
  write(address: number, size: number, value: number): void;
}

/** The device model's side: the registers of one window. */
export interface MmioHandler {
  /** Answers a read of `size` bytes, `offset` bytes into the window. */
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}
