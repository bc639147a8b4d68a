// How a disk's request ended, as a value: what a client is told of a failure, without exceptions crossing
// the requests that run side by side in transmission.ts.

import { NBD_EINVAL, NBD_EIO, NBD_ENOMEM, NBD_ENOTSUP, NBD_EPERM } from '../abi/nbd.ts';
import { DiskError } from '../drivers/disk.ts';
import { AssertionError } from '../errors.ts';
import type { Refusal } from './request.ts';

const ERROR_OF: Readonly<Record<DiskError['code'], number>> = {
  EIO: NBD_EIO,
  EROFS: NBD_EPERM,
  EINVAL: NBD_EINVAL,
  ENOTSUP: NBD_ENOTSUP,
  ENODEV: NBD_EIO,
  ENOMEM: NBD_ENOMEM,
};

/** What `work` resolves to, or the error it rejected with; a broken invariant of ours is passed on. */
export async function outcomeOf<T>(work: Promise<T>): Promise<T | DiskError> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof DiskError) return error;
    if (error instanceof AssertionError) throw error;
    return new DiskError('EIO', error instanceof Error ? error.message : String(error));
  }
}

/** The first failure among outcomes. */
export function failureIn(outcomes: readonly unknown[]): DiskError | undefined {
  return outcomes.find((outcome) => outcome instanceof DiskError);
}

/** What a client is told of a failure. */
export function refusalFor({ code, message }: DiskError): Refusal {
  return { error: ERROR_OF[code], message };
}
