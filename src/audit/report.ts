export interface ModeReport {
  readonly mode: string;
  readonly identical: boolean | null;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly pagesGranted: number;
  readonly bytesNeeded: number;
  readonly bytesExposed: number;
  readonly foreignReadableBytes: number;
  readonly foreignWritableBytes: number;
  readonly maxStaleNanoseconds: number;
  readonly leakedGrants: number;
  readonly [extra: string]: unknown;
}
export function reportTable(
  reports: readonly ModeReport[],
  _options: { colour: boolean; width: number },
): string {
  return reports.map((r) => JSON.stringify(r, null, 1)).join('\n');
}
