// Where metrics are served or read: a Unix socket, or a port of this machine. Used by metrics-server.ts and top.

import { UsageError } from '../usage.ts';

/** A Unix socket's path, or a host of this machine and a port. */
export type MetricsAddress = { readonly path: string } | { readonly host: string; readonly port: number };

const HOST_AND_PORT = /^(?:\[([^\]]+)\]|([^:/]+)):(\d+)$/;

/**
 * Reads what the user wrote: "HOST:PORT", everything else is a path. Throws UsageError for another machine's host,
 * because whoever can reach a port can read it.
 */
export function metricsAddress(text: string): MetricsAddress {
  const [, ipv6, name, digits] = HOST_AND_PORT.exec(text) ?? [];
  if (digits === undefined) return { path: text };
  const host = ipv6 ?? name;
  const port = Number(digits);
  if (port < 1 || port > 65535)
    throw new UsageError(`metrics at ${text}: port ${digits}, expected one from 1 to 65535`);
  if (!isLoopback(host))
    throw new UsageError(
      `metrics at ${text}: expected a host of this machine alone, such as 127.0.0.1 or [::1]; ` +
        'to read them from elsewhere, use a Unix socket and a proxy that asks who is there',
    );
  return { host: host === 'localhost' ? '127.0.0.1' : host, port };
}

/** Only names that need no resolver, which could say anything. */
function isLoopback(host: string): boolean {
  const numbers = /^127\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host)?.slice(1);
  return (
    host === 'localhost' || host === '::1' || (numbers?.every((number) => Number(number) < 256) ?? false)
  );
}
