// The document that `grantio run --json` prints, checked as far as every run must bear it out.

import assert from 'node:assert/strict';

/** What is 0 in every run that has ended in order. */
const FAULTS = [
  'leakedGrants',
  'quarantinedGrants',
  'touchesOutsideNeed',
  'requestsOpen',
  'contradictions',
  'eventsLost',
] as const;
const FIGURES = [
  'requestsPerSecond',
  'bytesPerSecond',
  'pagesGranted',
  'bytesNeeded',
  'bytesExposed',
  'foreignReadableBytes',
  'foreignWritableBytes',
  'maxStaleNanoseconds',
  ...FAULTS,
] as const;

/** One mode of the document: what tests look at. */
export type ModeFigures = { readonly [figure in (typeof FIGURES)[number]]: number } & {
  readonly mode: string;
  /** Null where nothing was compared. */
  readonly identical: boolean | null;
};

/** The modes of the document in `text`, each with all its figures. */
export function parseReport(text: string): readonly ModeFigures[] {
  const document = JSON.parse(text) as { readonly modes: readonly ModeFigures[] };
  assert.ok(Array.isArray(document.modes), `expected a list of modes: ${text}`);
  for (const entry of document.modes) {
    assert.equal(typeof entry.mode, 'string', `expected a mode's name: ${text}`);
    assert.ok(entry.identical === null || typeof entry.identical === 'boolean', `identical: ${text}`);
    for (const figure of FIGURES)
      assert.ok(Number.isSafeInteger(entry[figure]) && entry[figure] >= 0, `${figure}: ${entry[figure]}`);
  }
  return document.modes;
}

/** What must be true of each run in which requests were served, whoever asked. */
export function checkExposure(figures: ModeFigures): void {
  const { mode, bytesNeeded, bytesExposed, foreignReadableBytes, foreignWritableBytes } = figures;
  const said = JSON.stringify(figures);
  for (const fault of FAULTS) assert.equal(figures[fault], 0, `${fault}: ${said}`);
  assert.ok(figures.requestsPerSecond > 0 && figures.bytesPerSecond > 0, `no requests: ${said}`);
  assert.ok(figures.pagesGranted > 0, `no grants: ${said}`);
  assert.ok(bytesNeeded > 0 && bytesExposed > 0, `nothing shared: ${said}`);
  // A grant that is kept serves many buffers.
  if (mode === 'direct' || mode === 'bounce')
    assert.ok(bytesNeeded <= bytesExposed, `needed more than exposed: ${said}`);
  const foreign = foreignReadableBytes + foreignWritableBytes;
  if (mode !== 'direct') assert.equal(foreign, 0, `${mode} shows foreign bytes: ${said}`);
  else assert.ok(foreign > 0, `direct shows no foreign bytes, so nothing was measured: ${said}`);
}
