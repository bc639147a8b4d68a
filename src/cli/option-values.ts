// Values of options: read and checked while the call is parsed.

import { InvalidArgumentError } from 'commander';

/** A parser for an option's whole number from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`Expected a whole number from ${least} to ${most}.`);
    return value;
  };
}

const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** A parser for an option's size in bytes: "64M", "1G", "65536". */
export function sizeInBytes(least: number, most: number): (text: string) => number {
  return (text) => {
    const [, digits, unit] = /^(\d+)([KMG]?)(?:iB|B)?$/i.exec(text) ?? [];
    const bytes = digits === undefined ? Number.NaN : Number(digits) * SIZE_UNITS[unit.toUpperCase()];
    if (!(bytes >= least && bytes <= most))
      throw new InvalidArgumentError(
        `Expected a size from ${least / 2 ** 20}M to ${most / 2 ** 20}M, such as 64M.`,
      );
    return bytes;
  };
}
