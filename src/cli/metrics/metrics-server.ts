// Metrics over HTTP, for Prometheus, curl and `grantio top`: on a Unix socket that only its owner can open, or on a
// port of this machine. After operation.ts, before render.ts.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { listenAtPath, type RemoveSocket } from '../../hosts/linux/unix-socket.ts';
import { UsageError } from '../usage.ts';
import { CONTENT_TYPES, type Format, renderMetrics } from './render.ts';
import type { Figures } from './families.ts';
import type { MetricsAddress } from './metrics-address.ts';

/** Connections at a time; a scraper needs one. */
const MOST_CONNECTIONS = 16;
/** A client that says nothing for so long is let go. Milliseconds. */
const PATIENCE = 10_000;

/** Stops serving; resolves when the socket is gone. */
export type CloseMetrics = () => Promise<void>;

/**
 * Serves metrics at /metrics. Rejects when nothing can listen there: with UsageError for a path that no socket can
 * have.
 *
 * @param figures read for each request
 */
export async function serveMetrics(address: MetricsAddress, figures: () => Figures): Promise<CloseMetrics> {
  const server = createServer((request, response) => {
    answer(request, response, figures).catch(() => response.destroy());
  });
  server.maxConnections = MOST_CONNECTIONS;
  server.requestTimeout = PATIENCE;
  server.headersTimeout = PATIENCE;
  const remove =
    'path' in address ? await listenPrivately(server, address.path) : await listenAt(server, address);
  return async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await Promise.all([closed, remove()]);
  };
}

async function listenPrivately(server: Server, path: string): Promise<RemoveSocket> {
  try {
    return await listenAtPath(server, path, { mode: 0o600 });
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`--metrics: ${error.message}`);
    throw error;
  }
}

function listenAt(server: Server, address: { host: string; port: number }): Promise<RemoveSocket> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const place = `${address.host}:${address.port}`;
      reject(
        new Error(`metrics cannot be served at ${place} (${cause.message}); choose another port`, { cause }),
      );
    });
    server.listen(address, () => resolve(async () => undefined));
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  figures: () => Figures,
): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return say(response, 405, 'Metrics can only be read: GET /metrics.\n', { allow: 'GET, HEAD' });
  if (request.url?.split('?')[0] !== '/metrics') return say(response, 404, 'Metrics are at /metrics.\n');
  const format = formatFor(request.headers.accept);
  const text = await renderMetrics(figures(), format);
  say(response, 200, text, { 'content-type': CONTENT_TYPES[format] });
}

/** Node leaves the body out where HEAD asked. */
function say(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...headers,
  });
  response.end(text);
}

/** OpenMetrics, unless the client wants text/plain more (RFC 9110 §12.5.1). */
export function formatFor(accept: string | undefined): Format {
  if (accept === undefined) return 'openmetrics';
  const ranges = accept.split(',').map((range) => {
    const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2) ?? '1';
    return { type, weight: Number(weight) || 0 };
  });
  const weightOf = (...types: readonly string[]): number => {
    // The most specific range decides.
    const named = types.find((type) => ranges.some((range) => range.type === type));
    return Math.max(0, ...ranges.filter(({ type }) => type === named).map(({ weight }) => weight));
  };
  const open = weightOf('application/openmetrics-text', 'application/*', '*/*');
  return weightOf('text/plain', 'text/*', '*/*') > open ? 'text' : 'openmetrics';
}
