// The buckets in which times and depths are counted: powers of two, each cut into equal parts, so that a bucket is
// never wider than an eighth of what is in it. Used by counter-blocks.ts and whoever reads it.

/** Parts of a power of two, as bits. */
const PART_BITS = 3;
const PARTS = 1 << PART_BITS;

/** Buckets for whole numbers below 2^32; the last one has everything above as well. */
export const BUCKETS = PARTS * (32 - PART_BITS + 1);
const MOST = 2 ** 32 - 1;

/** The bucket of a number from 0 on; fractions are cut off. */
export function bucketOf(value: number): number {
  const whole = value < MOST ? value >>> 0 : MOST;
  if (whole < PARTS) return whole;
  const shift = 31 - Math.clz32(whole) - PART_BITS;
  return (shift << PART_BITS) + (whole >>> shift);
}

/** The least number of bucket `index`, which is where the one before it ends; for BUCKETS it is 2^32. */
export function bucketStart(index: number): number {
  if (index < PARTS) return index;
  const shift = (index >>> PART_BITS) - 1;
  return (PARTS + (index % PARTS)) * 2 ** shift;
}
