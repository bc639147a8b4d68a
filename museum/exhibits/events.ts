// The hypervisor's event channels, and the requests that it passes on to device models.

import type { Exhibit } from '../exhibit.ts';

export const EVENTS: readonly Exhibit[] = [
  {
    id: 'XSA-107',
    what: 'An event is put on a queue of a processor that has no control block.',
    file: 'src/hosts/model/events/fifo.ts',
    find: 'if (control === 0 || word === NO_WORD) return false;',
    replace: 'if (word === NO_WORD) return false;',
    tests: ['src/hosts/model/events/fifo.test.ts'],
    titles: /H25/,
  },
  {
    id: 'XSA-221',
    what: 'A port whose event word the guest has not given a page for is looked up all the same.',
    file: 'src/hosts/model/events/fifo.ts',
    find: 'if (port >= Atomics.load(this.#heap, domain.eventsWord + FIFO_PORTS)) return NO_WORD;',
    replace: '',
    tests: ['src/hosts/model/events/fifo.test.ts'],
    titles: /H25/,
  },
  {
    id: 'XSA-295/events',
    what: 'A guest that changes the word at the tail of a queue keeps the hypervisor trying for ever.',
    file: 'src/hosts/model/events/fifo.ts',
    find: 'for (let tries = 0; linked === undefined && tries < LINK_TRIES; tries++)',
    replace: 'while (linked === undefined)',
    tests: ['src/hosts/model/events/fifo.test.ts'],
    titles: /XSA-295/,
    hangs: true,
  },
  {
    id: 'XSA-340',
    what: 'The record of a port that has none is looked at.',
    file: 'src/hosts/model/events/channels.ts',
    find: 'return port >= 0 && port < this.validPorts(domain);',
    replace: 'return port >= 0;',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-340/,
  },
  {
    id: 'XSA-342',
    what: 'A guest that was reset keeps the larger limit of the ABI that it has left.',
    file: 'src/hosts/model/events/closing.ts',
    find: 'Atomics.store(this.#heap, domain.eventsWord + USES_FIFO, 0);',
    replace: '',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /H24/,
  },
  {
    id: 'XSA-343',
    what: 'A reset ends as if it had closed the ports that were opened meanwhile.',
    file: 'src/hosts/model/events/closing.ts',
    find: 'if (this.#ports.hasActive(domain)) return EAGAIN;',
    replace: '',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-343/,
  },
  {
    id: 'XSA-344',
    what: 'All ports of a domain that ends are closed in one go, and everybody waits.',
    file: 'src/hosts/model/events/closing.ts',
    find: 'if (port % SLICE === 0) yield;',
    replace: '',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-344: a domain/,
  },
  {
    id: 'XSA-358',
    also: ['XSA-359'],
    what: 'An event is delivered by what a domain was, when it has gone and is another one.',
    file: 'src/hosts/model/events/delivery.ts',
    find: 'if ((before & SHUT) === 0 && domain.current) return true;',
    replace: 'if ((before & SHUT) === 0) return true;',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-358/,
  },
  {
    id: 'XSA-496',
    what: 'A guest that fails to bind an interrupt of the machine takes it away from its holder.',
    file: 'src/hosts/model/events/event-ops.ts',
    find: 'if (port > 0) Atomics.store(this.#heap, this.#channels.virqWord(domain, vcpu, virq), port);',
    replace: `if (port > 0) Atomics.store(this.#heap, this.#channels.virqWord(domain, vcpu, virq), port);
      else {
        const holder = this.#domains.find(HARDWARE_DOMAIN)!;
        Atomics.store(this.#heap, this.#channels.virqWord(holder, 0, 3), 0);
      }`,
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-496/,
  },
  {
    id: 'XSA-505',
    what: 'A page of event words is added for a guest that a reset has just taken all of them from.',
    file: 'src/hosts/model/events/fifo-setup.ts',
    find: 'if (!this.#channels.usesFifo(domain)) return EOPNOTSUPP;',
    replace: '',
    tests: ['src/hosts/model/events/limits.test.ts'],
    titles: /XSA-505/,
  },
  {
    id: 'XSA-238',
    what: 'A range of addresses may end before it starts.',
    file: 'src/hosts/model/ioreq/servers.ts',
    find: `if (first > last) return EINVAL;
    return this.#withOwn(emulator, guest, id, (server) => {
      if (type > XEN_DMOP_IO_RANGE_PCI) return EINVAL;
      const result = server.makeRanges`,
    replace: `return this.#withOwn(emulator, guest, id, (server) => {
      if (type > XEN_DMOP_IO_RANGE_PCI) return EINVAL;
      const result = server.makeRanges`,
    tests: ['src/hosts/model/ioreq/hypercall.test.ts'],
    titles: /XSA-238/,
  },
  {
    id: 'XSA-262',
    what: 'A device model moves a request back to a state that it has been in.',
    file: 'src/hosts/model/ioreq/requests.ts',
    find: 'if (!isOver && (state < before || state > STATE_IORESP_READY)) {',
    replace: 'if (!isOver && state > STATE_IORESP_READY) {',
    tests: ['src/hosts/model/ioreq/requests.test.ts'],
    titles: /H27/,
  },
  {
    id: 'XSA-506',
    what: 'A hypercall of a device model is not asked whether it has any arguments.',
    file: 'src/hosts/model/ioreq/hypercall.ts',
    find: 'if (buffers.length === 0) return ENODATA;',
    replace: '',
    tests: ['src/hosts/model/ioreq/hypercall.test.ts'],
    error: 'of undefined',
  },
];
