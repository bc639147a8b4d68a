// What a guest's kernel needs of the ABI of its event channels. two-level-kernel.ts and fifo-kernel.ts know the two;
// domain-events.ts uses one of them.

/** A kernel's side of one of the ABIs. */
export interface KernelAbi {
  /** Lets events of a port come. Returns 0 or a negative errno. */
  open(port: number): number;
  /** Takes the events that are pending on a processor, and has each handled, most of them once. */
  take(vcpu: number, handle: (port: number) => void): void;
}
