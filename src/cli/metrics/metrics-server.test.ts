// Metrics over real HTTP: on a Unix socket that nobody else may open, and on a port of this machine; never elsewhere.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { type IncomingHttpHeaders, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { UsageError } from '../usage.ts';
import { someFigures } from './figures.test.helper.ts';
import { metricsAddress } from './metrics-address.ts';
import { formatFor, serveMetrics } from './metrics-server.ts';
import { checkOpenMetrics } from './open-metrics-rules.test.helper.ts';

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

interface Asked {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

function ask(
  socketPath: string,
  { path = '/metrics', method = 'GET', headers = {} }: Asked = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

async function socketIn(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'grantio-metrics-'));
  t.after(() => rm(folder, { recursive: true }));
  return join(folder, 'metrics');
}

test('a scrape over a Unix socket: private, OpenMetrics, what is counted at that moment', async (t) => {
  const path = await socketIn(t);
  let scrapes = 0;
  const figures = () => someFigures('root', { reads: ++scrapes, writes: 0, failed: 0 });
  const close = await serveMetrics({ path }, figures);
  t.after(close);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  for (const expected of [1, 2]) {
    const { status, headers, text } = await ask(path);
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'application/openmetrics-text; version=1.0.0; charset=utf-8');
    checkOpenMetrics(text);
    assert.ok(text.includes(`grantio_requests_total{device="root",op="read"} ${expected}\n`));
  }
});

test('who wants text/plain gets that', async (t) => {
  const path = await socketIn(t);
  t.after(await serveMetrics({ path }, someFigures));
  const { headers, text } = await ask(path, { headers: { accept: 'text/plain' } });
  assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  assert.match(text, /^# TYPE grantio_requests_total counter$/m);
});

test('anything but reading /metrics is refused in a sentence', async (t) => {
  const path = await socketIn(t);
  t.after(await serveMetrics({ path }, someFigures));
  const other = await ask(path, { path: '/' });
  assert.deepEqual([other.status, other.text], [404, 'Metrics are at /metrics.\n']);
  const write = await ask(path, { method: 'POST' });
  assert.deepEqual([write.status, write.headers.allow], [405, 'GET, HEAD']);
  const head = await ask(path, { method: 'HEAD' });
  assert.deepEqual([head.status, head.text], [200, '']);
});

test('the socket is gone when it is closed, and somebody who is connected does not keep it', async (t) => {
  const path = await socketIn(t);
  const close = await serveMetrics({ path }, someFigures);
  await ask(path, { headers: { connection: 'keep-alive' } });
  await close();
  await assert.rejects(stat(path), { code: 'ENOENT' });
});

test('a path that is taken, or too long, is refused', async (t) => {
  const path = await socketIn(t);
  await writeFile(path, 'mine');
  await assert.rejects(serveMetrics({ path }, someFigures), /is there and not a socket/);
  await assert.rejects(serveMetrics({ path: `/tmp/${'x'.repeat(200)}` }, someFigures), UsageError);
});

test('a port of this machine that is taken is refused', async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const address = taken.address();
  assert.ok(address !== null && typeof address === 'object');
  const there = serveMetrics({ host: '127.0.0.1', port: address.port }, someFigures);
  await assert.rejects(there, /choose another port/);
});

test('only hosts of this machine are addresses; everything without a port is a path', () => {
  assert.deepEqual(metricsAddress('127.0.0.1:9100'), { host: '127.0.0.1', port: 9100 });
  assert.deepEqual(metricsAddress('127.1.2.3:1'), { host: '127.1.2.3', port: 1 });
  assert.deepEqual(metricsAddress('localhost:80'), { host: '127.0.0.1', port: 80 });
  assert.deepEqual(metricsAddress('[::1]:9100'), { host: '::1', port: 9100 });
  for (const path of ['/run/m.sock', 'm', './a:1', '9100', '/tmp/x:80'])
    assert.deepEqual(metricsAddress(path), { path });
  for (const text of [
    '0.0.0.0:9100',
    '[::]:9100',
    '10.0.0.1:80',
    'example.org:80',
    '127.0.0.1.example.org:80',
    '127.0.0.256:80',
    '127.0.0.1:0',
    '127.0.0.1:65536',
  ])
    assert.throws(() => metricsAddress(text), UsageError, text);
});

test('the form is chosen by what the client accepts', () => {
  const prometheus =
    'application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2';
  for (const accept of [undefined, '*/*', prometheus, 'application/*', 'image/png', ''])
    assert.equal(formatFor(accept), 'openmetrics', accept);
  for (const accept of ['text/plain', 'text/*;q=0.5', 'text/plain, */*;q=0.1', 'TEXT/PLAIN; Q=0.4'])
    assert.equal(formatFor(accept), 'text', accept);
});
