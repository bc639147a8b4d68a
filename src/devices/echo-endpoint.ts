// A console that is attached to itself: the guest reads what it writes, as fast as it reads.

import type { ConsoleEndpoint, ConsoleLine } from './console-endpoint.ts';

export class EchoEndpoint implements ConsoleEndpoint {
  #line: ConsoleLine | undefined;

  connect(line: ConsoleLine): void {
    this.#line = line;
  }

  take(bytes: Uint8Array): number {
    return this.#line?.send(bytes) ?? 0;
  }

  hasRoom(): void {
    this.#line?.resume();
  }

  opened(): void {
    // It has nothing to say by itself.
  }
}
