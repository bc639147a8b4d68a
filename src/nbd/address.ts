// Where a server listens, as people write it and as clients want it (NetworkBlockDevice/nbd, doc/uri.md).

import { checkSocketPath } from '../hosts/linux/unix-socket.ts';

/** A Unix socket, or a TCP port; port 0 lets the system choose one. */
export type NbdAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Reads `SOCKET|HOST:PORT`. What has a slash, or no colon, is a socket's path; an IPv6 host stands in
 * brackets. Throws RangeError with what to write instead.
 */
export function parseNbdAddress(text: string): NbdAddress {
  if (text.includes('/') || !text.includes(':')) {
    checkSocketPath(text);
    return { path: text };
  }
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined)
    throw new RangeError(
      `NBD address ${JSON.stringify(text)}: expected HOST:PORT such as 127.0.0.1:10809 or [::1]:10809, ` +
        `or a socket's path (with a slash, such as ./${text}, if it has a colon)`,
    );
  const port = Number(digits);
  if (port > 65535) throw new RangeError(`NBD address ${text}: port ${port}, expected 0 to 65535`);
  return { host, port };
}

/** The URI by which clients reach an export: `nbd+unix:///NAME?socket=PATH` or `nbd://HOST:PORT/NAME`. */
export function nbdUri(address: NbdAddress, name: string): string {
  if ('path' in address) {
    const socket = address.path.split('/').map(encodeURIComponent).join('/');
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`;
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `nbd://${host}:${address.port}/${encodeURIComponent(name)}`;
}
