// What `grantio run` makes of errors that DMA debugging has found.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Exposure } from '../audit/exposure.ts';
import type { HostReport } from '../parallel/host-options.ts';
import { dmaDebugFault, modeResult } from './run-report.ts';

function resultWith(dmaDebug: HostReport['dmaDebug']) {
  const work = { bytes: 0, requests: 0, identical: true, nanoseconds: 1 };
  const host = {
    exposure: new Exposure().total(),
    eventsLost: 0,
    glimpse: undefined,
    directFrom: undefined,
    dmaDebug,
    mode: 'direct' as const,
    troubles: undefined,
    references: undefined,
  };
  return modeResult({ withoutGrants: false, architecture: 'x86' }, 'direct', work, host);
}

test('errors are printed as a kernel would log them, and are a fault', () => {
  const found = { entries: 0, mostEntries: 3, disabled: false, stacks: new Map() };
  const report = {
    driver: 'virtio_blk',
    device: 'virtio0',
    message: 'device driver does something wrong',
    calledAt: ['one (src/a.ts:1:2)'],
    mappedAt: ['two (src/b.ts:3:4)'],
  };
  const written: string[] = [];
  const stream = { write: (text: string) => written.push(text) > 0 };
  const fault = dmaDebugFault(resultWith({ ...found, errors: 2, reports: [report] }), stream);
  assert.equal(fault, 'direct: drivers misuse their mappings, 2 errors');
  assert.deepEqual(written.join('').split('\n'), [
    'DMA-API: virtio_blk virtio0: device driver does something wrong',
    'Call Trace:',
    ' one (src/a.ts:1:2)',
    'DMA-API: Mapped at:',
    ' two (src/b.ts:3:4)',
    'DMA-API: errors not shown: 1',
    '',
  ]);
});

test('without errors, and without debugging, nothing is printed', () => {
  const written: string[] = [];
  const stream = { write: (text: string) => written.push(text) > 0 };
  const clean = { errors: 0, entries: 0, mostEntries: 3, disabled: false, reports: [], stacks: new Map() };
  for (const dmaDebug of [clean, undefined])
    assert.equal(dmaDebugFault(resultWith(dmaDebug), stream), undefined);
  assert.equal(written.join(''), '');
});
