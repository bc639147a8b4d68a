// The Xen under a backend whose process is killed: nothing of the process is left, and nothing is told to the guest.
// What it had mapped is unmapped by its kernel, and its registers wait for whoever serves them next.

import { GNTST_OKAY } from '../../src/abi/grant.ts';
import type { BackendHost, MmioServer } from '../../src/xen/backend-host.ts';
import type { GrantMapper, GrantPages } from '../../src/xen/grant-mapper.ts';

/** One process's view of a host. */
export class MortalHost implements BackendHost {
  readonly id;
  readonly tracer;
  readonly events;
  readonly grantCopier;
  readonly grantMapper: GrantMapper;
  readonly #host: BackendHost;
  readonly #mapped = new Set<GrantPages>();
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
      mapPages: (owner, pages, readonly) => {
        const status = grantMapper.mapPages(owner, pages, readonly);
        if (status === GNTST_OKAY) this.#mapped.add(pages);
        return status;
      },
      unmapPages: (pages) => {
        this.#mapped.delete(pages);
        return grantMapper.unmapPages(pages);
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
    for (const pages of [...this.#mapped]) this.grantMapper.unmapPages(pages);
    for (const server of this.#servers) server.close();
  }
}
