// The buffer in which a session keeps what is under way, as it is asked for and brought back by the frontend, which
// holds it while no backend is there (case T8, CVE-2021-3839). Before inflight-journal.ts.

import { isSplitRingSize } from '../../abi/split-ring.ts';
import { vhostUserInflight } from '../../abi/vhost-user.ts';
import { inflightQueueSize } from '../../abi/vhost-user-inflight.ts';
import { ProtocolViolation } from '../../errors.ts';
import type { InflightArea } from './inflight-journal.ts';
import { mapFile, orViolation } from './map-file.ts';
import type { VhostMessage } from './message-reader.ts';
import type { MappedFile, VhostPlatform } from './platform.ts';

/** What a message says of a buffer, checked. */
interface Shape {
  readonly queues: number;
  readonly queueSize: number;
  /** Bytes that it takes. */
  readonly length: number;
}

/** The buffer of one session. */
export class InflightBuffer {
  readonly #platform: VhostPlatform;
  /** Largest size of each queue of the device. */
  readonly #queueSizes: readonly number[];
  #file: MappedFile | undefined;
  #shape: Shape = { queues: 0, queueSize: 0, length: 0 };

  constructor(platform: VhostPlatform, queueSizes: readonly number[]) {
    this.#platform = platform;
    this.#queueSizes = queueSizes;
  }

  /** Makes a buffer for the frontend to keep. Returns the answer, and the descriptor, which is the caller's. */
  create({ payload }: VhostMessage): { payload: Uint8Array; fd: number } {
    const { num_queues, queue_size } = vhostUserInflight.over(payload);
    const clause = 'vhost-user GET_INFLIGHT_FD';
    const { length } = this.#shapeOf(clause, num_queues, queue_size);
    const fd = orViolation(clause, () => this.#platform.createFile(length));
    // As long as the question: QEMU's structure ends with padding, and it takes no answer of another length.
    const answer = new Uint8Array(payload.length);
    answer.set(vhostUserInflight.make({ mmap_size: length, num_queues, queue_size }).bytes);
    return { payload: answer, fd };
  }

  /** Maps the buffer that a message brings; it is used once it is taken, while no ring runs. */
  adopt({ payload, fds }: VhostMessage): () => void {
    const clause = 'vhost-user SET_INFLIGHT_FD';
    const { mmap_size, mmap_offset, num_queues, queue_size } = vhostUserInflight.over(payload);
    const shape = this.#shapeOf(clause, num_queues, queue_size);
    if (mmap_size < shape.length)
      throw new ProtocolViolation(
        clause,
        `${mmap_size} bytes for ${num_queues} queues of ${queue_size}, expected ${shape.length}`,
      );
    const file = mapFile(this.#platform, clause, fds[0], mmap_offset, shape.length);
    return () => {
      this.#file?.close();
      this.#file = file;
      this.#shape = shape;
    };
  }

  /** Where queue `index` keeps what is under way. Throws ProtocolViolation when it has more than there is room for. */
  area(index: number, size: number): InflightArea | undefined {
    if (this.#file === undefined) return undefined;
    const { queues, queueSize } = this.#shape;
    // A driver may choose a ring smaller than the device's, which is what the monitor speaks of.
    if (index >= queues || size > queueSize)
      throw new ProtocolViolation(
        'vhost-user SET_INFLIGHT_FD',
        `the buffer is for ${queues} queues of ${queueSize}, queue ${index} has ${size}`,
      );
    return { region: this.#file.region, offset: index * inflightQueueSize(queueSize) };
  }

  /** Ends the mapping: no ring runs any more. */
  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #shapeOf(clause: string, queues: number, queueSize: number): Shape {
    const largest = Math.max(...this.#queueSizes);
    if (
      queues === 0 ||
      queues > this.#queueSizes.length ||
      !isSplitRingSize(queueSize) ||
      queueSize > largest
    )
      throw new ProtocolViolation(
        clause,
        `${queues} queues of ${queueSize}, expected at most ${this.#queueSizes.length} of ${largest}`,
      );
    return { queues, queueSize, length: queues * inflightQueueSize(queueSize) };
  }
}
