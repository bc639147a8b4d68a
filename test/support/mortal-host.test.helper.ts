// The Xen under a backend whose process is killed: nothing of the process is left, and nothing is told to the guest.
// What it had mapped is unmapped by its kernel, and its registers wait for whoever serves them next.

import type { BackendHost, MmioServer } from '../../src/xen/backend-host.ts';
import type { GrantMapper } from '../../src/xen/grant-mapper.ts';

/** One process's view of a host. */
export class MortalHost implements BackendHost {
  readonly id;
  readonly tracer;
  readonly events;
  readonly grantCopier;
  readonly grantMapper: GrantMapper;
  readonly #host: BackendHost;
  readonly #mapped = new Set<number>();
  readonly #servers: MmioServer[] = [];
  #alive = true;

  constructor(host: BackendHost) {
    const { id, tracer, events, grantCopier, grantMapper } = host;
    this.id = id;
    this.tracer = tracer;
    this.events = events;
    this.grantCopier = grantCopier;
    this.#host = host;
    this.grantMapper = {
      map: (owner, ref, readonly) => {
        const handle = grantMapper.map(owner, ref, readonly);
        if (handle >= 0) this.#mapped.add(handle);
        return handle;
      },
      unmap: (handle) => {
        this.#mapped.delete(handle);
        return grantMapper.unmap(handle);
      },
      region: (handle) => grantMapper.region(handle),
      offset: (handle) => grantMapper.offset(handle),
    };
  }

  park(): void {
    this.#host.park();
  }

  serveMmio(...[guest, base, size, handler, onDoorbell]: Parameters<BackendHost['serveMmio']>): MmioServer {
    const whileAlive = (): void => {
      if (this.#alive) onDoorbell();
    };
    const server = this.#host.serveMmio(guest, base, size, handler, whileAlive);
    this.#servers.push(server);
    return server;
  }

  mapForeignMemory(...[guest]: Parameters<BackendHost['mapForeignMemory']>) {
    return this.#host.mapForeignMemory(guest);
  }

  /** The process is killed. A successor has to serve the registers before a guest runs. */
  die(): void {
    this.#alive = false;
    for (const handle of [...this.#mapped]) this.grantMapper.unmap(handle);
    for (const server of this.#servers) server.close();
  }
}
