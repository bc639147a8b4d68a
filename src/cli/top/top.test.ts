// `grantio top`, from the text that processes serve to what is drawn: the numbers are those of the seconds between two
// looks, the table fits, and the terminal is given back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type DoneRequests, someFigures } from '../metrics/figures.test.helper.ts';
import { renderMetrics } from '../metrics/render.ts';
import { metricSamples } from './metric-samples.ts';
import { type DeviceRow, deviceRows } from './device-rows.ts';
import { Screen } from './screen.ts';
import { topTable } from './top-table.ts';
import { DeviceWatch } from './watch-devices.ts';

const CONNECTED = 1_700_000_000;

/** A process whose metrics can be read, and two clocks. */
class Bench {
  done: DoneRequests = { reads: 10, writes: 0, failed: 0 };
  time = 50;
  started = 1_600_000_000;
  cpuSeconds = 2;

  async text(name = 'root'): Promise<string> {
    const figures = someFigures(name, this.done);
    const { started: startTime, cpuSeconds } = this;
    return await renderMetrics(
      { ...figures, process: { ...figures.process, startTime, cpuSeconds } },
      'openmetrics',
    );
  }

  watch(): DeviceWatch {
    const places = new Map([
      ['one', { path: 'one' }],
      ['gone', { path: 'gone' }],
    ]);
    return new DeviceWatch(places, {
      read: (address) =>
        'path' in address && address.path === 'one'
          ? this.text()
          : Promise.reject(new Error('nobody listens')),
      time: () => this.time,
      wall: () => CONNECTED + 7265,
    });
  }
}

test('a row has what was done between two looks, for each second', async () => {
  const bench = new Bench();
  const watch = bench.watch();
  const first = (await watch.look()).rows[0];
  assert.deepEqual(
    [first.iops, first.mean, first.p99, first.cpu],
    [undefined, undefined, undefined, undefined],
  );
  bench.done = { reads: 110, writes: 100, failed: 4 };
  bench.time += 2;
  bench.cpuSeconds += 0.5;
  const { rows, problems } = await watch.look();
  const [root, noise] = rows;
  assert.equal(root.iops, 102);
  assert.equal(root.bytesPerSecond, (100 * 4096 + 100 * 8192) / 2);
  assert.ok(Math.abs(root.mean! - (104 * 8e-6 + 100 * 32e-6) / 204) < 1e-9);
  assert.ok(root.p99! > 32e-6 && root.p99! < 50e-6);
  assert.deepEqual([root.depth, root.cpu, root.exposed], [2, 0.25, 2 ** 20]);
  assert.deepEqual([root.foreign, noise.foreign], [8159, undefined]);
  assert.deepEqual([root.connected, root.errors, root.violations], [7265, 4, 1]);
  assert.deepEqual(
    [noise.device, noise.iops, noise.mean, noise.connected],
    ['noise', 0, undefined, undefined],
  );
  assert.deepEqual(problems, ['metrics at gone: nobody listens']);
});

test('a process that was started again counts from nothing, and never below', async () => {
  const bench = new Bench();
  const watch = bench.watch();
  await watch.look();
  bench.done = { reads: 1, writes: 0, failed: 0 };
  bench.started++;
  bench.time++;
  assert.equal((await watch.look()).rows[0].iops, undefined);
});

test('a device that took the place of another of its name counts from nothing', async () => {
  const bench = new Bench();
  const watch = bench.watch();
  await watch.look();
  bench.done = { reads: 4, writes: 0, failed: 0 };
  bench.time += 2;
  const [root] = (await watch.look()).rows;
  assert.deepEqual([root.iops, root.bytesPerSecond], [2, (4 * 4096) / 2]);
});

test('for any times, the p99 is within the bucket that 99 of 100 requests do not exceed', () => {
  const bounds = [0.001, 0.002, 0.004, 0.008, Number.POSITIVE_INFINITY];
  const look = (time: number, counts: readonly number[]) => {
    let total = 0;
    const samples = bounds.map((bound, i) => {
      total += counts[i];
      const labels = new Map([
        ['device', 'd'],
        ['op', 'read'],
        ['le', `${bound === Number.POSITIVE_INFINITY ? '+Inf' : bound}`],
      ]);
      return { name: 'grantio_request_duration_seconds_bucket', labels, value: total };
    });
    const info = { name: 'grantio_device_info', labels: new Map([['device', 'd']]), value: 1 };
    return { time, samples: [info, ...samples] };
  };
  const counts = fc.array(fc.nat(200), { minLength: 5, maxLength: 5 });
  fc.assert(
    fc.property(counts, counts, (before, more) => {
      const after = before.map((count, i) => count + more[i]);
      const [{ p99 }] = deviceRows(look(2, after), look(1, before), 0);
      const total = more.reduce((sum, count) => sum + count, 0);
      if (total === 0) return assert.equal(p99, undefined);
      let reached = 0;
      const place = more.findIndex((count) => {
        reached += count;
        return reached >= 0.99 * total;
      });
      const low = place === 0 ? 0 : bounds[place - 1];
      assert.ok(p99! >= low && p99! <= bounds[place], `${p99} between ${low} and ${bounds[place]}`);
    }),
    { seed: 99, numRuns: 500 },
  );
});

test('what we serve can be read again, whatever a device is called', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1, maxLength: 20 }), async (name) => {
      const samples = metricSamples(await new Bench().text(name));
      const info = samples.find((sample) => sample.name === 'grantio_device_info');
      assert.equal(info?.labels.get('device'), name);
      assert.equal(samples.find((sample) => sample.name === 'process_cpu_seconds_total')?.value, 2);
    }),
    { seed: 12, numRuns: 50 },
  );
});

test('a text that is cut off, or is something else, is refused', async () => {
  const text = await new Bench().text();
  assert.throws(() => metricSamples(text.slice(0, -10)), /not all of it/);
  assert.throws(() => metricSamples('<html># EOF\n'), /not OpenMetrics/);
  assert.throws(() => metricSamples('name words\n# EOF\n'), /not OpenMetrics: name words/);
});

const ROW: DeviceRow = {
  ...{ device: 'root', kind: 'blk', connected: 11_000, iops: 151_234, bytesPerSecond: 619_454_464 },
  ...{ mean: 6.1e-6, p99: 0.0000189, depth: 31.4, cpu: 0.988, exposed: 2 ** 30, errors: 0, violations: 2 },
  foreign: 3 * 2 ** 20,
};
const IDLE: DeviceRow = {
  ...{ device: 'disk10', kind: 'blk', connected: undefined, iops: 0, bytesPerSecond: 0, mean: undefined },
  ...{ p99: undefined, depth: undefined, cpu: 0.988, exposed: 0, errors: 0, violations: 0 },
  foreign: undefined,
};

test('the table, as docs/operation.md shows it', () => {
  const rows = [ROW, IDLE, { ...IDLE, device: 'disk9' }];
  assert.equal(
    topTable(rows, { width: 120, colour: false }),
    `┌────────┬──────┬──────────┬───────┬───────┬─────────┬─────────┬───────┬────────┬──────────┬────────┬────────────┐
│ device │ kind │ frontend │  IOPS │ MiB/s │    mean │     p99 │ depth │    CPU │  exposed │ errors │ violations │
│ disk9  │ blk  │        – │     0 │   0.0 │       – │       – │     – │ 98.8 % │      0 B │      0 │          0 │
│ disk10 │ blk  │        – │     0 │   0.0 │       – │       – │     – │ 98.8 % │      0 B │      0 │          0 │
│ root   │ blk  │      3 h │ 151 k │ 590.8 │ 6.10 µs │ 18.9 µs │  31.4 │ 98.8 % │ 1.00 GiB │      0 │          2 │
└────────┴──────┴──────────┴───────┴───────┴─────────┴─────────┴───────┴────────┴──────────┴────────┴────────────┘`,
  );
});

test('on a narrow terminal columns go, and the device, its rates and its errors stay', () => {
  for (let width = 60; width <= 130; width++) {
    const lines = topTable([ROW, IDLE], { width, colour: false }).split('\n');
    for (const line of lines) assert.ok(line.length <= width, `${line.length} characters of ${width}`);
    for (const heading of ['device', 'IOPS', 'MiB/s', 'p99', 'CPU', 'errors'])
      assert.ok(lines[1].includes(heading));
  }
});

test('colours only where they are wanted; D9: a name cannot write to the terminal', () => {
  const hostile = { ...ROW, device: 'a\x1b[2Jb' };
  assert.ok(!topTable([hostile], { width: 200, colour: false }).includes('\x1b'));
  assert.ok(topTable([hostile], { width: 200, colour: true }).includes('\x1b[31m2\x1b[0m'));
});

/** A terminal that keeps what is written. */
class FakeTerminal {
  columns = 80;
  rows = 4;
  readonly written: string[] = [];

  write(text: string): void {
    this.written.push(text);
  }
}

test('a frame is one write from the top left corner, that erases what it does not cover, and nothing before', () => {
  const terminal = new FakeTerminal();
  const screen = new Screen(terminal);
  screen.open();
  screen.draw('a\nb');
  const [enter, frame] = terminal.written;
  assert.ok(enter.includes('\x1b[?1049h') && enter.includes('\x1b[?25l'));
  assert.equal(frame, '\x1b[?2026h\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J\x1b[?2026l');
});

test('a page that is longer than the terminal is cut, and never scrolls', () => {
  const terminal = new FakeTerminal();
  const screen = new Screen(terminal);
  screen.open();
  screen.draw('1\n2\n3\n4\n5\n6');
  assert.equal(terminal.written[1].split('\r\n').length, terminal.rows);
  assert.ok(terminal.written[1].includes('…'));
  terminal.rows = 6;
  screen.draw('1\n2\n3\n4\n5\n6');
  assert.ok(terminal.written[2].includes('6\x1b[K'));
});

test('the terminal is given back once, and nothing is drawn after that', () => {
  const terminal = new FakeTerminal();
  const screen = new Screen(terminal);
  screen.open();
  screen.close();
  screen.close();
  screen.draw('late');
  assert.equal(terminal.written.length, 2);
  assert.ok(terminal.written[1].includes('\x1b[?1049l') && terminal.written[1].includes('\x1b[?25h'));
});
