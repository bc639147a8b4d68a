import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DMA_FROM_DEVICE, DMA_TO_DEVICE } from '../trace.ts';
import type { AuditReport } from './audit.ts';
import {
  audited,
  auditOf,
  BACKEND,
  DISK,
  directRead,
  GUEST,
  NET,
  traceText,
} from './auditing.test.helper.ts';
import { AUDIT_RULES, type AuditRuleId } from './audit-rules.ts';
import type { DirectTracer } from './event-tracer.ts';
import type { Finding } from './findings.ts';

const rulesOf = ({ runs }: AuditReport): AuditRuleId[] =>
  runs.flatMap(({ findings }) => findings.map(({ rule }) => rule));

function finding(report: AuditReport, rule: AuditRuleId): Finding {
  const found = report.runs.flatMap(({ findings }) => findings).filter((each) => each.rule === rule);
  assert.equal(found.length, 1, `${rule}: ${found.length} findings`);
  return found[0];
}

/** A page that is granted for writing and holds one need, which fills it. */
function wholePage(trace: DirectTracer): void {
  trace.grant(GUEST, BACKEND, 8, 100, 1, false);
  trace.need(GUEST, DISK, 8, 0, 4096, DMA_FROM_DEVICE);
  trace.map(BACKEND, GUEST, 8, 1, false);
}

test('XSA-403, G14: bytes beside a buffer are findings, readable and writable ones apart, with their request', () => {
  const report = audited(({ trace }) => {
    for (let id = 0; id < 1000; id++) directRead(trace, id);
  });
  assert.deepEqual(rulesOf(report), ['foreign-readable', 'foreign-writable']);
  const { first, worst, ...readable } = finding(report, 'foreign-readable');
  assert.deepEqual(readable, {
    rule: 'foreign-readable',
    domain: GUEST,
    device: DISK,
    requestType: 0,
    count: 1000,
    bytes: 4_080_000,
    maxNanoseconds: 0,
    owners: [{ kind: 'kernel', bytes: 4_080_000 }],
  });
  assert.equal(first, worst);
  assert.deepEqual([first.ref, first.frame, first.backend, first.bytes], [8, 100, BACKEND, 4080]);
  assert.deepEqual(first.request, { id: 0, type: 0, bytes: 512 });
  assert.equal(finding(report, 'foreign-writable').bytes, 1000 * (4096 - 512));
});

test('a finding names the stack that made the mapping, and different stacks make different findings', () => {
  const { runs } = audited(({ trace, writer }) => {
    directRead(trace, 1, 5);
    directRead(trace, 2, 7);
    directRead(trace, 3, 7);
    writer.addStacks(new Map([5, 6, 7, 99].map((stack) => [stack, `stack ${stack}`])));
  });
  const readable = runs[0].findings.filter(({ rule }) => rule === 'foreign-readable');
  assert.deepEqual(
    readable.map(({ stack, count }) => [stack, count]),
    [
      [7, 2],
      [5, 1],
    ],
  );
  assert.deepEqual([...runs[0].stacks.keys()].sort(), [5, 6, 7], 'stacks that no finding names are not kept');
});

test('events of another thread between a mapping and its stack do not part them', () => {
  const lines = traceText(({ trace }) => directRead(trace, 1, 5)).split('\n');
  // The unmaps of the backend's thread, moved between the need and its origin.
  const threads = lines.map((line) =>
    /"kind":"(un)?map"/.test(line) ? line.replace('"thread":0', '"thread":1') : line,
  );
  const at = threads.findIndex((line) => line.includes('"kind":"origin"'));
  const event = threads.splice(
    threads.findIndex((line) => line.includes('"kind":"map"')),
    1,
  )[0];
  threads.splice(at, 0, event);
  let sequence = 0;
  const text = threads
    .map((line) => line.replace(/"sequence":\d+/, () => `"sequence":${sequence++}`))
    .join('\n');
  assert.equal(finding(auditOf(text), 'foreign-readable').stack, 5);
});

test('G17: foreign bytes are told by their owner: a buffer or a private page of another device, or the kernel', () => {
  const report = audited(({ trace }) => {
    trace.grant(GUEST, BACKEND, 8, 100, 1, true);
    trace.need(GUEST, DISK, 8, 1024, 1024, DMA_TO_DEVICE);
    trace.grant(GUEST, BACKEND, 9, 100, 1, true);
    trace.need(GUEST, NET, 9, 3072, 1024, DMA_TO_DEVICE);
    trace.revoke(GUEST, 9, 1);
    trace.needEnd(GUEST, NET, 9, 3072, 1024);
    trace.privatePages(GUEST, NET, 101, 1);
    trace.grant(GUEST, BACKEND, 9, 101, 1, false);
    trace.need(GUEST, DISK, 9, 0, 96, DMA_FROM_DEVICE);
  });
  const owners = report.runs[0].findings
    .filter(({ rule }) => rule.startsWith('foreign'))
    .map(({ rule, device, owners: of }) => [rule, device, of]);
  assert.deepEqual(owners, [
    ['foreign-writable', DISK, [{ kind: 'private', device: NET, bytes: 4000 }]],
    ['foreign-readable', DISK, [{ kind: 'kernel', bytes: 3072 }]],
    [
      'foreign-readable',
      NET,
      [
        { kind: 'kernel', bytes: 2048 },
        { kind: 'buffer', device: DISK, bytes: 1024 },
      ],
    ],
  ]);
});

test('G17: the owners of foreign bytes share all of them, each byte once', () => {
  const need = fc.record({
    device: fc.nat(3),
    offset: fc.nat(4095),
    size: fc.integer({ min: 1, max: 4096 }),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(need, { minLength: 2, maxLength: 8, selector: ({ offset }) => offset }),
      (needs) => {
        const { runs } = audited(({ trace }) => {
          for (const [index, { device, offset, size }] of needs.entries()) {
            trace.grant(GUEST, BACKEND, 8 + index, 100, 1, index % 2 === 0);
            trace.need(GUEST, device, 8 + index, offset, Math.min(size, 4096 - offset), DMA_TO_DEVICE);
          }
        });
        const foreign = runs[0].findings.filter(({ rule }) => rule.startsWith('foreign'));
        assert.equal(
          foreign.reduce((sum, { bytes }) => sum + bytes, 0),
          runs[0].total.foreignReadableBytes,
        );
        for (const { bytes, owners } of foreign) {
          assert.equal(
            owners.reduce((sum, owner) => sum + owner.bytes, 0),
            bytes,
          );
          assert.ok(owners.every((owner) => owner.bytes > 0));
        }
      },
    ),
    { seed: 17, numRuns: 200 },
  );
});

test('G16: a buffer to be read only, granted for writing, is over-permission', () => {
  const report = audited(({ trace }) => {
    trace.grant(GUEST, BACKEND, 8, 100, 1, false);
    trace.need(GUEST, DISK, 8, 0, 4096, DMA_TO_DEVICE);
  });
  const { bytes, count } = finding(report, 'over-permission');
  assert.deepEqual([bytes, count], [4096, 1]);
});

test('G22: a page that is kept after its request is a finding, if nobody has declared that it would be', () => {
  const stale = (limit: number) =>
    audited(({ clock, trace }) => {
      if (limit > 0) trace.staleLimit(GUEST, DISK, limit);
      trace.requestBegin(GUEST, DISK, 1, 0, 4096);
      wholePage(trace);
      trace.unmap(BACKEND, GUEST, 8, 1);
      trace.needEnd(GUEST, DISK, 8, 0, 4096);
      clock.now += 300;
      trace.requestEnd(GUEST, DISK, 1, 0);
      clock.now += 700;
      trace.revoke(GUEST, 8, 1);
    });
  assert.deepEqual(rulesOf(stale(0)), ['stale-window']);
  assert.equal(finding(stale(0), 'stale-window').maxNanoseconds, 1000);
  assert.deepEqual(finding(stale(0), 'stale-window').worst.request, { id: 1, type: 0, bytes: 4096 });
  // The device had a request to serve for 300 ns of it only.
  assert.deepEqual(rulesOf(stale(300)), ['stale-declared']);
  assert.deepEqual(rulesOf(stale(299)), ['stale-beyond-limit']);
  assert.equal(finding(stale(299), 'stale-beyond-limit').maxNanoseconds, 300);
});

test('G23: a write after the driver took the buffer back is a late write, a read a late read', () => {
  const report = audited(({ clock, trace }) => {
    trace.staleLimit(GUEST, DISK, 1e9);
    wholePage(trace);
    trace.touch(BACKEND, GUEST, 8, 0, 4096, true);
    trace.needEnd(GUEST, DISK, 8, 0, 4096);
    clock.now += 50;
    trace.touch(BACKEND, GUEST, 8, 16, 8, true);
    trace.touch(BACKEND, GUEST, 8, 32, 8, false);
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.revoke(GUEST, 8, 1);
  });
  assert.deepEqual(rulesOf(report), ['late-write', 'late-read', 'stale-declared']);
  assert.equal(finding(report, 'late-write').maxNanoseconds, 50);
  assert.match(finding(report, 'late-write').first.detail!, /^wrote 8 bytes from offset 16$/);
});

test('G23: a need that goes on when its request is complete does not excuse a write', () => {
  const report = audited(({ trace }) => {
    trace.requestBegin(GUEST, DISK, 1, 0, 4096);
    wholePage(trace);
    trace.requestEnd(GUEST, DISK, 1, 0);
    trace.touch(BACKEND, GUEST, 8, 0, 8, true);
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 0, 4096);
  });
  assert.deepEqual(rulesOf(report), ['late-write']);
});

test('B19: references that nobody granted, and bytes that nobody shared, are findings', () => {
  const report = audited(({ trace }) => {
    wholePage(trace);
    for (let ref = 100; ref < 5100; ref++) trace.mapRefused(BACKEND, GUEST, ref, -3);
    trace.mapRefused(BACKEND, GUEST, 8, -1);
    trace.touch(BACKEND, GUEST, 7, 0, 8, false);
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 0, 4096);
  });
  const { findings } = report.runs[0];
  assert.deepEqual(
    findings.map(({ rule, device, count }) => [rule, device, count]),
    [
      ['touch-outside-need', undefined, 1],
      ['refused-map', undefined, 5000],
      ['refused-map', DISK, 1],
    ],
  );
  assert.equal(findings[1].first.detail, 'status -3, no such grant');
});

test('access without any grant is the worst there is', () => {
  const report = audited(({ trace }) => {
    directRead(trace, 1);
    trace.reach(BACKEND, GUEST, 0, 262_144);
  });
  assert.equal(report.runs[0].findings[0].rule, 'unrestricted-reach');
  assert.equal(finding(report, 'unrestricted-reach').bytes, 2 ** 30);
  assert.deepEqual(report.runs[0].reached, [{ domain: GUEST, mapper: BACKEND, frame: 0, count: 262_144 }]);
});

test('what is left at the end of a run has leaked, and each run has an end of its own', () => {
  const report = audited(({ trace, writer }) => {
    writer.beginRun('direct');
    wholePage(trace);
    writer.beginRun('bounce');
    wholePage(trace);
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.busy(GUEST, 8);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 0, 4096);
  });
  assert.deepEqual(
    report.runs.map(({ mode, findings }) => [mode, findings.map(({ rule }) => rule)]),
    [
      ['direct', ['leaked-grant']],
      ['bounce', ['quarantined-page']],
    ],
  );
  assert.equal(report.runs[1].total.contradictions, 0, 'the second run is of a host that was booted anew');
});

test('a trace that was cut is audited up to there: what is live then has not leaked', () => {
  const text = traceText(({ trace }) => {
    wholePage(trace);
    trace.busy(GUEST, 8);
  });
  const report = auditOf(text.slice(0, -10));
  assert.deepEqual(rulesOf(report), ['incomplete-trace']);
  assert.equal(report.isComplete, false);
  const holes = text
    .split('\n')
    .filter((line) => !line.includes('"kind":"map"'))
    .join('\n');
  assert.deepEqual(rulesOf(auditOf(holes)).sort(), ['incomplete-trace', 'leaked-grant', 'quarantined-page']);
});

test('grants that no buffer names, or no backend uses, and events that cannot be true, are findings', () => {
  const report = audited(({ trace }) => {
    trace.grant(GUEST, BACKEND, 8, 100, 1, true);
    trace.grant(GUEST, BACKEND, 9, 101, 1, true);
    trace.need(GUEST, DISK, 9, 0, 4096, DMA_TO_DEVICE);
    trace.revoke(GUEST, 8, 2);
    trace.needEnd(GUEST, DISK, 9, 0, 4096);
    trace.revoke(GUEST, 8, 1);
  });
  assert.deepEqual(rulesOf(report), ['grant-without-need', 'contradiction', 'grant-never-used']);
  assert.equal(finding(report, 'contradiction').first.detail, 'revoke: the reference is not granted');
});

test('an exact run has no findings', () => {
  const report = audited(({ trace }) => {
    trace.grant(GUEST, BACKEND, 8, 100, 1, true);
    trace.narrow(GUEST, 8, 64, 16);
    trace.need(GUEST, DISK, 8, 64, 16, DMA_TO_DEVICE);
    trace.touch(BACKEND, GUEST, 8, 64, 16, false);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 64, 16);
  });
  assert.deepEqual(rulesOf(report), []);
  assert.deepEqual(
    report.runs[0].frames.map(({ frame, exposed, devices }) => [frame, exposed, devices]),
    [[100, 16, [DISK]]],
  );
});

test('a hostile trace with a million causes makes a bounded number of findings, and loses no count', () => {
  const report = audited(({ trace }) => {
    for (let device = 0; device < 5000; device++) trace.mapRefused(BACKEND, device + 10, 8, -3);
  });
  const { findings } = report.runs[0];
  assert.ok(findings.length <= 1001, `${findings.length} findings`);
  assert.equal(
    findings.reduce((sum, { count }) => sum + count, 0),
    5000,
  );
});

test('the timeline has the highest level of each step, whatever the length of the run', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ pause: fc.nat(3_000_000), pages: fc.integer({ min: 1, max: 4 }) }), {
        minLength: 1,
        maxLength: 60,
      }),
      (uses) => {
        const report = audited(({ clock, trace }) => {
          for (const { pause, pages } of uses) {
            clock.now += pause;
            trace.grant(GUEST, BACKEND, 8, 100, pages, false);
            trace.need(GUEST, DISK, 8, 0, pages * 4096, DMA_FROM_DEVICE);
            clock.now += 10;
            trace.revoke(GUEST, 8, pages);
            trace.needEnd(GUEST, DISK, 8, 0, pages * 4096);
          }
        });
        const { duration, timeline } = report.runs[0];
        const { steps, width } = timeline;
        assert.ok(steps.length <= 240 && steps.length * width >= duration);
        const most = Math.max(...uses.map(({ pages }) => pages)) * 4096;
        assert.equal(Math.max(...steps.map(({ exposed }) => exposed)), most);
        assert.equal(Math.max(...steps.map(({ needed }) => needed)), most);
        const broken = steps.reduce((sum, step) => sum + (step.broken.get('grant-never-used') ?? 0), 0);
        assert.equal(
          broken,
          uses.reduce((sum, { pages }) => sum + pages, 0),
        );
      },
    ),
    { seed: 403, numRuns: 100 },
  );
});

test('between two events the level of the timeline stays what it was', () => {
  const report = audited(({ clock, trace }) => {
    wholePage(trace);
    clock.now += 50_000;
    trace.unmap(BACKEND, GUEST, 8, 1);
    trace.revoke(GUEST, 8, 1);
    trace.needEnd(GUEST, DISK, 8, 0, 4096);
    clock.now += 50_000;
    trace.privatePages(GUEST, DISK, 200, 1);
  });
  const { steps, width } = report.runs[0].timeline;
  const last = 50_000 / width;
  assert.deepEqual(
    steps.map(({ exposed, needed }) => [exposed, needed]),
    steps.map((_, at) => (at <= last ? [4096, 4096] : [0, 0])),
  );
});

test('the rules have ids of their own, in lower case', () => {
  const ids = AUDIT_RULES.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^[a-z]+(-[a-z]+)*$/);
});
