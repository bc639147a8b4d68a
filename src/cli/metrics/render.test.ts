// The text of the metrics: OpenMetrics by its rules, the values that were counted, and names that stay as they are.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { someFigures } from './figures.test.helper.ts';
import { checkOpenMetrics } from './open-metrics-rules.test.helper.ts';
import { FAMILIES } from './families.ts';
import { renderMetrics } from './render.ts';

/** All but buckets and HELP, which are many and long. */
function skeleton(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.includes('_bucket') && !line.startsWith('# HELP'))
    .filter((line) => !/^grantio_request_(errors|duration).* 0$/.test(line))
    .join('\n');
}

const EXPECTED = `# TYPE grantio_device_info gauge
grantio_device_info{device="root",kind="blk",guest="3"} 1
grantio_device_info{device="noise",kind="rng"} 1
# TYPE grantio_requests counter
grantio_requests_total{device="root",op="read"} 4
grantio_requests_total{device="root",op="write"} 2
grantio_requests_total{device="root",op="flush"} 0
grantio_requests_total{device="root",op="discard"} 0
grantio_requests_total{device="root",op="write_zeroes"} 0
grantio_requests_total{device="root",op="get_id"} 0
grantio_requests_total{device="root",op="other"} 0
grantio_requests_total{device="noise",op="entropy"} 0
# TYPE grantio_data_bytes counter
grantio_data_bytes_total{device="root",op="read"} 12288
grantio_data_bytes_total{device="root",op="write"} 16384
grantio_data_bytes_total{device="root",op="get_id"} 0
grantio_data_bytes_total{device="noise",op="entropy"} 0
# TYPE grantio_request_errors counter
grantio_request_errors_total{device="root",op="read",status="ioerr"} 1
# TYPE grantio_request_duration_seconds histogram
grantio_request_duration_seconds_count{device="root",op="read"} 4
grantio_request_duration_seconds_count{device="root",op="write"} 2
# TYPE grantio_queue_depth histogram
grantio_queue_depth_sum{device="root"} 12
grantio_queue_depth_count{device="root"} 6
grantio_queue_depth_sum{device="noise"} 0
grantio_queue_depth_count{device="noise"} 0
# TYPE grantio_enabled_queues gauge
grantio_enabled_queues{device="root"} 1
grantio_enabled_queues{device="noise"} 0
# TYPE grantio_notifications counter
grantio_notifications_total{device="root"} 0
grantio_notifications_total{device="noise"} 0
# TYPE grantio_interrupts counter
grantio_interrupts_total{device="root"} 1
grantio_interrupts_total{device="noise"} 0
# TYPE grantio_refused_chains counter
grantio_refused_chains_total{device="root"} 0
grantio_refused_chains_total{device="noise"} 0
# TYPE grantio_needed_bytes counter
grantio_needed_bytes_total{device="root"} 28774
grantio_needed_bytes_total{device="noise"} 0
# TYPE grantio_exposed_bytes gauge
grantio_exposed_bytes{device="root"} 1048576
grantio_exposed_bytes{device="noise"} 0
# TYPE grantio_given_pages counter
grantio_given_pages_total{device="root"} 40
# TYPE grantio_unneeded_pages gauge
grantio_unneeded_pages{device="root"} 3
# TYPE grantio_foreign_readable_bytes counter
grantio_foreign_readable_bytes_total{device="root"} 8159
# TYPE grantio_foreign_writable_bytes counter
grantio_foreign_writable_bytes_total{device="root"} 4079
# TYPE grantio_stale_windows counter
grantio_stale_windows_total{device="root"} 36
# TYPE grantio_stale_seconds counter
grantio_stale_seconds_total{device="root"} 0.018
# TYPE grantio_longest_stale_seconds gauge
grantio_longest_stale_seconds{device="root"} 0.002
# TYPE grantio_trace_events_lost counter
grantio_trace_events_lost_total 2
# TYPE grantio_mappings gauge
grantio_mappings{device="root"} 1
grantio_mappings{device="noise"} 0
# TYPE grantio_mapped_bytes gauge
grantio_mapped_bytes{device="root"} 1048576
grantio_mapped_bytes{device="noise"} 0
# TYPE grantio_frontend_connected gauge
grantio_frontend_connected{device="root"} 1
grantio_frontend_connected{device="noise"} 0
# TYPE grantio_frontend_connected_timestamp_seconds gauge
grantio_frontend_connected_timestamp_seconds{device="root"} 1700000000
# TYPE grantio_sessions counter
grantio_sessions_total{device="root"} 2
grantio_sessions_total{device="noise"} 0
# TYPE grantio_frontends_refused counter
grantio_frontends_refused_total{device="root"} 0
grantio_frontends_refused_total{device="noise"} 0
# TYPE grantio_connections_closed counter
grantio_connections_closed_total{device="root"} 1
grantio_connections_closed_total{device="noise"} 0
# TYPE grantio_violations counter
grantio_violations_total{device="root",clause="§2.7.5"} 1
# TYPE grantio_worker_looks counter
grantio_worker_looks_total{worker="0"} 100
# TYPE grantio_worker_busy_looks counter
grantio_worker_busy_looks_total{worker="0"} 6
# TYPE grantio_worker_sleeps counter
grantio_worker_sleeps_total{worker="0"} 4
# TYPE grantio_worker_sleep_seconds counter
grantio_worker_sleep_seconds_total{worker="0"} 1.5
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 2.5
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 67108864
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1600000000
# TYPE grantio_build_info gauge
grantio_build_info{version="1.2.3"} 1
# EOF
`;

test('the figures come out as OpenMetrics, by its rules and value by value', async () => {
  const text = await renderMetrics(someFigures(), 'openmetrics');
  checkOpenMetrics(text);
  const withoutSums = skeleton(text)
    .split('\n')
    .filter((line) => !line.startsWith('grantio_request_duration_seconds_sum'));
  assert.equal(withoutSums.join('\n'), EXPECTED);
});

test('times are in seconds, in the bucket that holds them', async () => {
  const text = await renderMetrics(someFigures(), 'openmetrics');
  const sum = /request_duration_seconds_sum\{device="root",op="write"\} (\S+)/.exec(text)?.[1];
  assert.ok(Math.abs(Number(sum) - 64e-6) < 1e-9);
  const [families] = [checkOpenMetrics(text)];
  const buckets = families
    .find(({ name }) => name === 'grantio_request_duration_seconds')!
    .samples.filter(({ labels }) => labels.startsWith('device="root",op="write",le='));
  const reached = buckets.find(({ value }) => value > 0)!;
  const bound = Number(/le="([^"]+)"/.exec(reached.labels)![1]);
  assert.ok(bound > 32e-6 && bound <= 48e-6 * 1.03);
  assert.equal(reached.value, 2);
});

test('as text/plain the names of counters are the same, and stay so when both forms take turns', async () => {
  const figures = someFigures();
  await renderMetrics(figures, 'openmetrics');
  const text = await renderMetrics(figures, 'text');
  assert.match(text, /^# TYPE grantio_requests_total counter$/m);
  assert.match(text, /^grantio_requests_total\{device="root",op="read"\} 4$/m);
  assert.doesNotMatch(text, /# EOF/);
});

test('D9: a name with quotes, backslashes and line feeds does not break a line', async () => {
  const text = await renderMetrics(someFigures('a"b\\c\nd'), 'openmetrics');
  checkOpenMetrics(text);
  assert.ok(text.includes('device="a\\"b\\\\c\\nd"'));
});

test('names follow the conventions: a prefix, a unit, _total for counters alone', () => {
  for (const { name, type, help, labels } of FAMILIES) {
    assert.match(name, /^(grantio|process)_[a-z_]+$/);
    assert.equal(name.endsWith('_total'), type === 'counter', name);
    assert.match(help, /\.$/, name);
    assert.ok(labels.every((label) => /^[a-z]+$/.test(label) && label !== 'le'));
  }
  assert.equal(new Set(FAMILIES.map(({ name }) => name)).size, FAMILIES.length);
});
