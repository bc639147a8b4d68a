// Fetches a process's metrics, once. The other end is metrics-server.ts. After watch-devices.ts.

import { type IncomingMessage, request } from 'node:http';
import type { MetricsAddress } from '../metrics/metrics-address.ts';

/** Whoever does not answer in time is left out of the table. Milliseconds. */
const PATIENCE = 2000;
const MOST_BYTES = 64 * 2 ** 20;

/** The metrics as text. Rejects with why there are none. */
export function readMetrics(address: MetricsAddress): Promise<string> {
  const place = 'path' in address ? { socketPath: address.path } : { host: address.host, port: address.port };
  return new Promise((resolve, reject) => {
    const headers = { accept: 'application/openmetrics-text; version=1.0.0' };
    const sent = request({ ...place, path: '/metrics', headers, agent: false }, (response) => {
      bodyOf(response).then(resolve, reject);
    });
    sent.setTimeout(PATIENCE, () => sent.destroy(new Error(`no answer for ${PATIENCE / 1000} s`)));
    sent.on('error', reject);
    sent.end();
  });
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  if (response.statusCode !== 200) {
    response.destroy();
    throw new Error(`the answer has status ${response.statusCode}`);
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MOST_BYTES) throw new Error(`the answer has more than ${MOST_BYTES / 2 ** 20} MiB`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
