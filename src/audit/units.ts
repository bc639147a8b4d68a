// Numbers as people read them: three digits and a unit. Used by report.ts.

const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const COUNTS = ['', 'k', 'M', 'G', 'T'];
const TIMES = ['ns', 'µs', 'ms', 's'];

function digits(value: number): string {
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

function scaled(value: number, units: readonly string[], step: number): string {
  let unit = 0;
  let rest = value;
  // What would be shown as a full step of one unit is shown as one of the next.
  for (; unit < units.length - 1 && Math.round(rest) >= step; unit++) rest /= step;
  const isWhole = unit === 0 && Number.isInteger(value);
  return `${isWhole ? value : digits(rest)} ${units[unit]}`.trimEnd();
}

/** Bytes, as "512 B" or "1.50 MiB". */
export function bytesText(bytes: number): string {
  return scaled(bytes, BYTES, 1024);
}

/** A count, as "999" or "1.50 M". */
export function countText(count: number): string {
  return scaled(count, COUNTS, 1000);
}

/** A time in nanoseconds, as "0 ns" or "1.50 ms"; "no limit" for Infinity. */
export function timeText(nanoseconds: number): string {
  if (nanoseconds === Number.POSITIVE_INFINITY) return 'no limit';
  return scaled(nanoseconds, TIMES, 1000);
}
