// An audit of events that a test reports by hand: what the tests of findings and of the formats share.

import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import { Audit, type AuditReport } from './audit.ts';
import { DirectTracer } from './event-tracer.ts';
import { type TraceHeader, TraceWriter } from './trace-file.ts';
import { TraceReader } from './trace-reader.ts';

export const GUEST = 2;
export const BACKEND = 1;
export const DISK = 0;
export const NET = 1;

const header: TraceHeader = {
  version: '0.1.0',
  mode: 'direct',
  devices: [
    { domain: GUEST, device: DISK, name: 'xvda', mode: 'direct', type: 2 },
    { domain: GUEST, device: NET, name: 'net0', mode: 'direct', type: 1 },
  ],
  startTime: '2026-01-02T03:04:05.678Z',
};

/** What a test can do besides reporting events. */
export interface Recording {
  readonly clock: { now: number };
  readonly trace: DirectTracer;
  readonly writer: TraceWriter;
}

/** The text of a trace file with the events that `report` reports. */
export function traceText(
  report: (recording: Recording) => void,
  name = 'xvda',
  side?: TraceHeader['side'],
): string {
  let text = '';
  const clock = { now: 1000 };
  const devices = header.devices.map((device) => (device.device === DISK ? { ...device, name } : device));
  const writer = new TraceWriter({ ...header, devices, ...(side && { side }) }, (chunk) => {
    text += chunk;
  });
  report({ clock, trace: new DirectTracer([writer], () => clock.now), writer });
  writer.close();
  return text;
}

/** Audits the text of a trace file. */
export function auditOf(text: string): AuditReport {
  const audit = new Audit();
  const reader = new TraceReader(audit);
  for (const line of text.split('\n').slice(0, -1)) reader.read(line);
  return audit.finish(reader);
}

/** Audits the events that `report` reports. */
export function audited(report: (recording: Recording) => void): AuditReport {
  return auditOf(traceText(report));
}

/** A read of 512 bytes in whole pages, as mode `direct` does it, its stacks being `stack` and the next ones. */
export function directRead(trace: DirectTracer, id: number, stack?: number): void {
  trace.requestBegin(GUEST, DISK, id, 0, 512);
  trace.grant(GUEST, BACKEND, 8, 100, 1, true);
  trace.need(GUEST, DISK, 8, 64, 16, DMA_TO_DEVICE);
  if (stack !== undefined) trace.origin(GUEST, DISK, 8, 64, stack);
  trace.grant(GUEST, BACKEND, 9, 101, 1, false);
  trace.need(GUEST, DISK, 9, 0, 512, DMA_FROM_DEVICE);
  if (stack !== undefined) trace.origin(GUEST, DISK, 9, 0, stack + 1);
  for (const ref of [8, 9]) trace.map(BACKEND, GUEST, ref, ref, ref === 8);
  trace.touch(BACKEND, GUEST, 8, 64, 16, false);
  trace.touch(BACKEND, GUEST, 9, 0, 512, true);
  for (const ref of [8, 9]) trace.unmap(BACKEND, GUEST, ref, ref);
  trace.revoke(GUEST, 8, 1);
  trace.needEnd(GUEST, DISK, 8, 64, 16);
  trace.revoke(GUEST, 9, 1);
  trace.needEnd(GUEST, DISK, 9, 0, 512);
  trace.requestEnd(GUEST, DISK, id, 0);
}
