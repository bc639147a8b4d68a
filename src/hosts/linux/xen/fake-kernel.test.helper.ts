// Linux's Xen devices for tests, on a machine without Xen: files of memory stand for what domains granted and for what
// Xen shares, so that mappings are real ones; hypercalls are played here, after drivers/xen/ of Linux 6.1 and Xen 4.17.

import { constants } from 'node:os';
import * as dm from '../../../abi/dm-op.ts';
import * as domctl from '../../../abi/domctl.ts';
import * as evtchn from '../../../abi/evtchn.ts';
import * as gnt from '../../../abi/gntdev.ts';
import { GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GNTST_OKAY } from '../../../abi/grant.ts';
import { GNTCOPY_SOURCE_GREF } from '../../../abi/grant-table-op.ts';
import * as io from '../../../abi/ioreq.ts';
import * as pc from '../../../abi/privcmd.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import type { Libc } from '../libc.ts';
import { libcOfTest } from '../native.test.helper.ts';

const errnos = constants.errno;
const PROT_WRITE = 2;
const MAP_SHARED_FIXED = 0x11;
const MAP_FIXED = 0x10;
const PAGES = 512;
const FIRST_REF = 8;
/** The port of Xen's that belongs to processor 0 of a guest; the others follow. */
const FIRST_VCPU_PORT = 100;

interface Grant {
  readonly owner: number;
  readonly page: number;
  readonly readonly: boolean;
  alive: boolean;
}

interface Channel {
  readonly fd: number;
  /** What it is bound to: a port of this kernel's, or one of a guest's processors. */
  peer: Channel | undefined;
  masked: boolean;
  pending: boolean;
}

interface Server {
  readonly page: number;
  enabled: boolean;
  readonly ranges: { base: number; end: number }[];
}

/** What a test says of a guest. */
export interface FakeGuest {
  readonly kind: 'hvm' | 'pvh' | 'pv';
  readonly vcpus: number;
  /** Pages of memory, and those among them that are not there. */
  readonly pages: number;
  readonly holes: readonly number[];
}

/** The kernel, and Xen under it. */
export class FakeKernel {
  readonly libc: Libc;
  /** Errnos with which ioctls fail from now on. */
  readonly failing = new Map<number, number>();
  /** Paths that cannot be opened. */
  readonly missing = new Map<string, number>();
  /** Levels that lines were set to, as "irq=level". */
  readonly lines: string[] = [];
  /** A line was set for a guest that has none. */
  panicked = false;
  /** Calls of ioctl and mmap. */
  calls = 0;
  readonly servers = new Map<string, Server>();
  /** Pages that gntdev takes by one call: its parameter `limit`. */
  gntdevLimit = 0x1_0000;
  /** Version of domctl that this Xen speaks. */
  domctlVersion = 0x15;
  readonly #real = libcOfTest();
  readonly #memory: number;
  readonly #bytes: Uint8Array;
  readonly #paths = new Map<number, string>();
  readonly #grants = new Map<string, Grant>();
  /** Offsets, and the pages that each stands for. */
  readonly #announced = new Map<number, { owner: number; ref: number }[]>();
  readonly #mapped = new Map<number, number>();
  /** What privcmd and gntdev have mapped by one call each: addresses, and bytes. */
  readonly #whole = new Map<number, number>();
  readonly #channels = new Map<number, Channel>();
  readonly #kernelEnds = new Map<number, number>();
  readonly #vcpuChannels = new Map<string, Channel>();
  readonly #guests = new Map<number, FakeGuest>();
  #nextPage = 0;
  #nextRef = FIRST_REF;
  #nextIndex = 7;
  #nextPort = 10;
  #errno: number | undefined;

  constructor() {
    const real = this.#real;
    this.#memory = real.memfd_create('grantio-fake-xen', 0);
    real.ftruncate(this.#memory, PAGES * XEN_PAGE_SIZE);
    const at = real.mmap(0, PAGES * XEN_PAGE_SIZE, 3, 1, this.#memory, 0);
    this.#bytes = new Uint8Array(real.view(at, PAGES * XEN_PAGE_SIZE));
    this.libc = {
      ...real,
      open: (path, flags, mode) => this.#open(path, flags, mode),
      close: (fd) => this.#close(fd),
      ioctl: (fd, request, argument) => this.#ioctl(fd, request, argument),
      mmap: (...args) => this.#mmap(...args),
      munmap: (address, length) => {
        if (!this.#forget(address, length)) return this.#fail(errnos.EINVAL);
        return real.munmap(address, length);
      },
      write: (fd, address, length) => this.#write(fd, address, length),
      errno: () => {
        const errno = this.#errno ?? real.errno();
        this.#errno = undefined;
        return errno;
      },
    };
  }

  /** Descriptors of devices that are open. */
  get open(): number {
    return this.#paths.size;
  }

  /** Pages that are mapped, and those that the device still knows. */
  get mapped(): number {
    return this.#mapped.size;
  }
  get announced(): number {
    return [...this.#announced.values()].reduce((sum, pages) => sum + pages.length, 0);
  }
  get channels(): number {
    return this.#channels.size;
  }

  addGuest(id: number, guest: Partial<FakeGuest> = {}): void {
    this.#guests.set(id, { kind: 'hvm', vcpus: 1, pages: 16, holes: [], ...guest });
  }

  removeGuest(id: number): void {
    this.#guests.delete(id);
    for (const key of this.servers.keys()) if (key.startsWith(`${id}:`)) this.servers.delete(key);
  }

  /** A domain grants a page of zeroes. */
  grant(owner: number, readonly: boolean): { ref: number; bytes: Uint8Array } {
    const [ref, page] = [this.#nextRef++, this.#takePage()];
    this.#grants.set(`${owner}:${ref}`, { owner, page, readonly, alive: true });
    return { ref, bytes: this.#pageBytes(page) };
  }

  /** Returns false, and the grant stays, while it is mapped. */
  revoke(owner: number, ref: number): boolean {
    const grant = this.#grants.get(`${owner}:${ref}`)!;
    if ([...this.#mapped.values()].includes(grant.page)) return false;
    grant.alive = false;
    return true;
  }

  /** The page of requests of a server. */
  serverPage(guest: number, id: number): Uint8Array {
    return this.#pageBytes(this.servers.get(`${guest}:${id}`)!.page);
  }

  /** Xen wakes whoever serves a processor of a guest. Returns false when nobody does. */
  wake(guest: number, vcpu: number): boolean {
    const channel = this.#vcpuChannels.get(`${guest}:${vcpu}`);
    if (channel === undefined) return false;
    this.#raise(channel);
    return true;
  }

  /** The process has gone: its descriptors are closed, and only what is Xen's own stays. */
  killProcess(): void {
    for (const fd of [...this.#paths.keys()]) this.#close(fd);
    this.#announced.clear();
    this.#mapped.clear();
    this.#whole.clear();
  }

  #takePage(): number {
    if (this.#nextPage === PAGES) throw new Error('the fake kernel has no page left');
    return this.#nextPage++;
  }

  #pageBytes(page: number): Uint8Array {
    return this.#bytes.subarray(page * XEN_PAGE_SIZE, (page + 1) * XEN_PAGE_SIZE);
  }

  #fail(errno: number): number {
    this.#errno = errno;
    return -1;
  }

  #open(path: string, flags: number, mode: number): number {
    if (!path.startsWith('/dev/xen/')) return this.#real.open(path, flags, mode);
    const errno = this.missing.get(path);
    if (errno !== undefined) return this.#fail(errno);
    let fd = this.#real.dup(this.#memory);
    if (path === '/dev/xen/evtchn') {
      this.#real.close(fd);
      const [ours, kernels] = this.#socketPair();
      this.#kernelEnds.set(ours, kernels);
      fd = ours;
    }
    this.#paths.set(fd, path);
    return fd;
  }

  #socketPair(): [number, number] {
    const at = this.#real.mmap(0, XEN_PAGE_SIZE, 3, 0x22, -1, 0);
    const fds = new Int32Array(this.#real.view(at, 8));
    this.#real.socketpair(1, 0x801, 0, at);
    const pair: [number, number] = [fds[0], fds[1]];
    this.#real.munmap(at, XEN_PAGE_SIZE);
    return pair;
  }

  #close(fd: number): number {
    const end = this.#kernelEnds.get(fd);
    if (end !== undefined) {
      for (const [port, { fd: owner }] of this.#channels) if (owner === fd) this.#closeChannel(port);
      this.#real.close(end);
      this.#kernelEnds.delete(fd);
    }
    this.#paths.delete(fd);
    return this.#real.close(fd);
  }

  #ioctl(fd: number, request: number, address: number): number {
    const failing = this.failing.get(request);
    this.calls++;
    if (failing !== undefined) return this.#fail(failing);
    const result = this.#answer(fd, request, address);
    return result < 0 ? this.#fail(-result) : result;
  }

  #answer(fd: number, request: number, address: number): number {
    switch (request) {
      case gnt.IOCTL_GNTDEV_MAP_GRANT_REF:
        return this.#announce(address);
      case gnt.IOCTL_GNTDEV_UNMAP_GRANT_REF: {
        const { index, count } = gnt.ioctlGntdevUnmapGrantRef.over(this.#at(address, 16));
        if (this.#announced.get(index)?.length !== count) return -errnos.ENOENT;
        this.#announced.delete(index);
        return 0;
      }
      case gnt.IOCTL_GNTDEV_GRANT_COPY:
        return this.#copyAll(this.#at(address, gnt.ioctlGntdevGrantCopy.size));
      case pc.IOCTL_PRIVCMD_DM_OP:
        return this.#dmOp(this.#at(address, pc.privcmdDmOp.size));
      case pc.IOCTL_PRIVCMD_MMAP_RESOURCE:
        return this.#mapResource(this.#at(address, pc.privcmdMmapResource.size));
      case pc.IOCTL_PRIVCMD_MMAPBATCH_V2:
        return this.#mapBatch(this.#at(address, pc.privcmdMmapbatchV2.size));
      case pc.IOCTL_PRIVCMD_HYPERCALL:
        return this.#hypercall(this.#at(address, pc.privcmdHypercall.size));
      default:
        return this.#eventChannel(fd, request, this.#at(address, 8));
    }
  }

  #at(address: number, length: number): Uint8Array {
    return new Uint8Array(this.#real.view(address, length));
  }

  #announce(address: number): number {
    const argument = gnt.ioctlGntdevMapGrantRef.over(this.#at(address, gnt.ioctlGntdevMapGrantRef.size));
    const { count } = argument;
    if (count === 0 || count > this.gntdevLimit) return -errnos.EINVAL;
    const { size } = gnt.ioctlGntdevGrantRef;
    const records = this.#at(address + gnt.ioctlGntdevMapGrantRef.offsetOf('domid'), count * size);
    const record = gnt.ioctlGntdevGrantRef.over(records);
    const pages = Array.from({ length: count }, (_, i) => {
      const { domid, ref } = record.at(i * size);
      return { owner: domid, ref };
    });
    const index = this.#nextIndex * XEN_PAGE_SIZE;
    this.#nextIndex += count;
    this.#announced.set(index, pages);
    argument.index = index;
    return 0;
  }

  #find(owner: number, ref: number): Grant | number {
    if (!this.#guests.has(owner)) return GNTST_BAD_DOMAIN;
    const grant = this.#grants.get(`${owner}:${ref}`);
    if (grant === undefined) return ref >= FIRST_REF + 512 ? GNTST_BAD_GNTREF : GNTST_GENERAL_ERROR;
    return grant.alive ? grant : GNTST_GENERAL_ERROR;
  }

  #mmap(at: number, length: number, protection: number, flags: number, fd: number, offset: number): number {
    const real = this.#real;
    const path = this.#paths.get(fd);
    this.calls++;
    if ((flags & MAP_FIXED) !== 0 && !this.#forget(at, length)) return this.#fail(errnos.ENOMEM);
    if (path === undefined) return real.mmap(at, length, protection, flags, fd, offset);
    if (path === '/dev/xen/gntdev') return this.#mapGranted(at, length, protection, flags, offset);
    // The other devices give addresses, at which something may be put later.
    const address = real.mmap(at, length, protection, (flags & MAP_FIXED) | 0x22, -1, 0);
    if (path === '/dev/xen/privcmd') this.#whole.set(address, length);
    return address;
  }

  /** All pages that were announced together, or none of them. */
  #mapGranted(at: number, length: number, protection: number, flags: number, offset: number): number {
    const wanted = this.#announced.get(offset) ?? [];
    const grants = wanted.map(({ owner, ref }) => this.#find(owner, ref));
    const isWrong = (grant: Grant | number): boolean =>
      typeof grant === 'number' || (grant.readonly && (protection & PROT_WRITE) !== 0);
    if (wanted.length * XEN_PAGE_SIZE !== length || grants.some(isWrong)) {
      // Linux takes away what was there before it asks the driver.
      this.#real.munmap(at, length);
      return this.#fail(errnos.EINVAL);
    }
    for (const [i, grant] of grants.entries()) {
      if (typeof grant === 'number') continue;
      const page = at + i * XEN_PAGE_SIZE;
      this.#mapped.set(page, grant.page);
      this.#real.mmap(page, XEN_PAGE_SIZE, protection, flags, this.#memory, grant.page * XEN_PAGE_SIZE);
    }
    this.#whole.set(at, length);
    return at;
  }

  /**
   * Returns false when only a part of what was mapped by one call would go. Linux refuses that for privcmd; for gntdev it
   * tries, and what has become of the other pages then is not certain: refused here, so that nobody relies on it.
   */
  #forget(address: number, length: number): boolean {
    const end = address + length;
    for (const [at, size] of this.#whole) {
      if (at + size <= address || at >= end) continue;
      if (at < address || at + size > end) return false;
    }
    for (const at of this.#whole.keys()) if (at >= address && at < end) this.#whole.delete(at);
    for (const at of this.#mapped.keys()) if (at >= address && at < end) this.#mapped.delete(at);
    return true;
  }

  #copyAll(bytes: Uint8Array): number {
    const { count, segments } = gnt.ioctlGntdevGrantCopy.over(bytes);
    const list = this.#at(segments, count * gnt.gntdevCopyIn.size);
    for (let i = 0; i < count; i++) {
      const offset = i * gnt.gntdevCopyIn.size;
      const isIn = gnt.gntdevCopyIn.over(list).at(offset).flags === GNTCOPY_SOURCE_GREF;
      const segment = (isIn ? gnt.gntdevCopyIn : gnt.gntdevCopyOut).over(list).at(offset);
      const { foreign_offset: start, virt, len } = segment;
      if (start + len > XEN_PAGE_SIZE) return -errnos.EINVAL;
      const grant = this.#find(segment.foreign_domid, segment.foreign_ref);
      if (typeof grant === 'number') segment.status = grant;
      else if (!isIn && grant.readonly) segment.status = GNTST_GENERAL_ERROR;
      else {
        const granted = this.#pageBytes(grant.page).subarray(start, start + len);
        if (isIn) this.#at(virt, len).set(granted);
        else granted.set(this.#at(virt, len));
        segment.status = GNTST_OKAY;
      }
    }
    return 0;
  }

  #eventChannel(fd: number, request: number, bytes: Uint8Array): number {
    const { value } = evtchn.ioctlEvtchnWord.over(bytes);
    const channel = this.#channels.get(value);
    switch (request) {
      case evtchn.IOCTL_EVTCHN_BIND_UNBOUND_PORT:
        return this.#newChannel(fd, undefined);
      case evtchn.IOCTL_EVTCHN_BIND_INTERDOMAIN:
        return this.#bind(fd, value, evtchn.ioctlEvtchnBindInterdomain.over(bytes).remote_port);
      case evtchn.IOCTL_EVTCHN_UNBIND:
        if (channel?.fd !== fd) return -errnos.ENOTCONN;
        this.#closeChannel(value);
        return 0;
      case evtchn.IOCTL_EVTCHN_NOTIFY:
        if (channel?.fd !== fd) return -errnos.ENOTCONN;
        if (channel.peer !== undefined) this.#raise(channel.peer);
        return 0;
      default:
        return -errnos.ENOTTY;
    }
  }

  #newChannel(fd: number, peer: Channel | undefined): number {
    const port = this.#nextPort++;
    this.#channels.set(port, { fd, peer, masked: false, pending: false });
    return port;
  }

  #bind(fd: number, domain: number, remote: number): number {
    const peer = this.#channels.get(remote);
    const vcpu = `${domain}:${remote - FIRST_VCPU_PORT}`;
    const isVcpu = remote >= FIRST_VCPU_PORT && this.#guests.has(domain);
    if (isVcpu ? this.#vcpuChannels.has(vcpu) : peer === undefined || peer.peer !== undefined)
      return -errnos.EINVAL;
    const port = this.#newChannel(fd, peer);
    const channel = this.#channels.get(port)!;
    if (isVcpu) this.#vcpuChannels.set(vcpu, channel);
    else peer!.peer = channel;
    // Something may have been sent to the port before it was bound.
    this.#raise(channel);
    return port;
  }

  #closeChannel(port: number): void {
    const channel = this.#channels.get(port)!;
    if (channel.peer !== undefined) channel.peer.peer = undefined;
    for (const [vcpu, bound] of this.#vcpuChannels) if (bound === channel) this.#vcpuChannels.delete(vcpu);
    this.#channels.delete(port);
  }

  #raise(channel: Channel): void {
    if (channel.masked) {
      channel.pending = true;
      return;
    }
    channel.masked = true;
    const [port] = [...this.#channels].find(([, each]) => each === channel)!;
    this.#send(this.#kernelEnds.get(channel.fd)!, port);
  }

  #send(fd: number, port: number): void {
    const at = this.#real.mmap(0, XEN_PAGE_SIZE, 3, 0x22, -1, 0);
    new Uint32Array(this.#real.view(at, 4))[0] = port;
    this.#real.write(fd, at, 4);
    this.#real.munmap(at, XEN_PAGE_SIZE);
  }

  #write(fd: number, address: number, length: number): number {
    if (!this.#kernelEnds.has(fd)) return this.#real.write(fd, address, length);
    for (const port of new Uint32Array(this.#real.view(address, length))) {
      const channel = this.#channels.get(port);
      if (channel === undefined) continue;
      channel.masked = false;
      if (!channel.pending) continue;
      channel.pending = false;
      this.#raise(channel);
    }
    return length;
  }

  #mapResource(bytes: Uint8Array): number {
    const { dom, id, num, addr } = pc.privcmdMmapResource.over(bytes);
    const server = this.servers.get(`${dom}:${id}`);
    if (server === undefined || num !== 1) return -errnos.ENOENT;
    this.#real.mmap(addr, XEN_PAGE_SIZE, 3, MAP_SHARED_FIXED, this.#memory, server.page * XEN_PAGE_SIZE);
    return 0;
  }

  #mapBatch(bytes: Uint8Array): number {
    const { num, dom, addr, arr, err } = pc.privcmdMmapbatchV2.over(bytes);
    const guest = this.#guests.get(dom);
    if (guest === undefined) return -errnos.ESRCH;
    const frames = new BigUint64Array(this.#real.view(arr, num * 8));
    const errors = new Int32Array(this.#real.view(err, num * 4));
    for (let i = 0; i < num; i++) {
      const frame = Number(frames[i]);
      errors[i] = frame >= guest.pages || guest.holes.includes(frame) ? -errnos.EINVAL : 0;
      const at = addr + i * XEN_PAGE_SIZE;
      // Nothing is there that could be looked at.
      if (errors[i] !== 0) this.#real.munmap(at, XEN_PAGE_SIZE);
      else this.#real.mmap(at, XEN_PAGE_SIZE, 3, MAP_SHARED_FIXED, this.#memory, frame * XEN_PAGE_SIZE);
    }
    return 0;
  }

  #hypercall(bytes: Uint8Array): number {
    const { op, arg0 } = pc.privcmdHypercall.over(bytes);
    if (op !== pc.HYPERVISOR_domctl) return -errnos.ENOSYS;
    const head = domctl.xenDomctl.over(this.#at(arg0, domctl.XEN_DOMCTL_SIZE));
    if (head.interface_version !== this.domctlVersion) return -errnos.EACCES;
    const found = [...this.#guests.keys()].sort((a, b) => a - b).find((id) => id >= head.domain);
    if (found === undefined) return -errnos.ESRCH;
    const { kind, pages } = this.#guests.get(found)!;
    const info = domctl.xenDomctlGetdomaininfo.over(this.#at(arg0, domctl.XEN_DOMCTL_SIZE)).at(16);
    info.domain = found;
    info.flags = kind === 'pv' ? 0 : domctl.XEN_DOMINF_hvm_guest;
    info.max_pages = pages;
    info.emulation_flags = kind === 'hvm' ? 0x1ff : domctl.XEN_X86_EMU_LAPIC;
    return 0;
  }

  #dmOp(bytes: Uint8Array): number {
    const { dom, ubufs } = pc.privcmdDmOp.over(bytes);
    const { h, size } = dm.xenDmOpBuf.over(this.#at(ubufs, dm.xenDmOpBuf.size));
    const guest = this.#guests.get(dom);
    if (guest === undefined) return -errnos.ESRCH;
    if (guest.kind === 'pv') return -errnos.EINVAL;
    const { op } = dm.xenDmOp.over(this.#at(h, dm.xenDmOp.size));
    return this.#operation(dom, guest, op, this.#at(h, size).subarray(dm.xenDmOp.size));
  }

  #operation(dom: number, guest: FakeGuest, op: number, data: Uint8Array): number {
    const server = (id: number) => this.servers.get(`${dom}:${id}`);
    switch (op) {
      case dm.XEN_DMOP_create_ioreq_server:
        return this.#createServer(dom, dm.xenDmOpCreateIoreqServer.over(data));
      case dm.XEN_DMOP_get_ioreq_server_info:
        return server(dm.xenDmOpGetIoreqServerInfo.over(data).id) ? 0 : -errnos.ENOENT;
      case dm.XEN_DMOP_set_ioreq_server_state:
        return this.#enable(guest, server(dm.xenDmOpSetIoreqServerState.over(data).id));
      case dm.XEN_DMOP_destroy_ioreq_server:
        return this.servers.delete(`${dom}:${dm.xenDmOpDestroyIoreqServer.over(data).id}`)
          ? 0
          : -errnos.ENOENT;
      case dm.XEN_DMOP_map_io_range_to_ioreq_server:
      case dm.XEN_DMOP_unmap_io_range_from_ioreq_server: {
        const { id, start, end } = dm.xenDmOpIoreqServerRange.over(data);
        const isNew = op === dm.XEN_DMOP_map_io_range_to_ioreq_server;
        return this.#range(server(id), isNew, Number(start), Number(end));
      }
      case dm.XEN_DMOP_nr_vcpus:
        dm.xenDmOpNrVcpus.over(data).vcpus = guest.vcpus;
        return 0;
      case dm.XEN_DMOP_set_isa_irq_level: {
        const { isa_irq, level } = dm.xenDmOpSetIsaIrqLevel.over(data);
        if (guest.kind !== 'hvm') this.panicked = true;
        this.lines.push(`${isa_irq}=${level}`);
        return 0;
      }
      default:
        return -errnos.EOPNOTSUPP;
    }
  }

  #createServer(dom: number, fields: { id: number }): number {
    const id = [0, 1, 2, 3, 4, 5, 6, 7].find((each) => !this.servers.has(`${dom}:${each}`));
    if (id === undefined) return -errnos.ENOSPC;
    this.servers.set(`${dom}:${id}`, { page: this.#takePage(), enabled: false, ranges: [] });
    fields.id = id;
    return 0;
  }

  #enable({ vcpus }: FakeGuest, server: Server | undefined): number {
    if (server === undefined) return -errnos.ENOENT;
    server.enabled = true;
    const page = io.ioreq.over(this.#pageBytes(server.page));
    for (let vcpu = 0; vcpu < vcpus; vcpu++) page.at(vcpu * io.ioreq.size).vp_eport = FIRST_VCPU_PORT + vcpu;
    return 0;
  }

  #range(server: Server | undefined, isNew: boolean, base: number, end: number): number {
    if (server === undefined) return -errnos.ENOENT;
    const { ranges } = server;
    const same = ranges.findIndex((range) => range.base === base && range.end === end);
    if (!isNew) return same >= 0 && ranges.splice(same, 1).length === 1 ? 0 : -errnos.ENOENT;
    if (ranges.some((range) => range.base <= end && base <= range.end)) return -errnos.EEXIST;
    ranges.push({ base, end });
    return 0;
  }
}
