// The machine: QEMU with the processor that Xen and its guests run on under software emulation, the hypervisor, the
// first domain on a disk of which nothing is kept, and the share.
//
// Without SMAP and SMEP, because a paravirtualised first domain dies of the first; without MONITOR, of which Xen's
// idle loop panics, as it does with its own idle driver (cpuidle=0); without RDTSCP, in which fully virtualised guests
// loop for ever. Without XSAVE and what needs it, because QEMU 7.2 now and then loses that state between two domains
// (Linux: "Bad FPU state detected at os_xrstor").
//
// With Xen's older scheduler, because the newer one (credit2) under emulation now and then leaves the first domain in
// its queue while all processors idle, for ever (as Xen's key "r" showed): two busy guests are enough.

import { appendFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Program } from '../../peers/rig/program.ts';
import { dom0 } from './dom0.ts';
import { guestKernel } from './guest-kernel.ts';
import { makeShare } from './share.ts';

/** How long the first domain may take to switch itself off, in milliseconds. */
const STOP_LIMIT = 120_000;

/** The cache's folders that a machine is made of. */
export interface MachineParts {
  readonly dom0: string;
  /** The guests' kernel, if there are to be guests. */
  readonly guest: string | undefined;
}

/** A machine with Xen. */
export class Machine {
  /** The folder shared with the first domain; Xen's console is logged in it too, as `xen.log`. */
  readonly share = makeShare();
  readonly #qemu: Program;
  readonly #began = Date.now();

  /** What a machine is made of, built if it is not in the cache. Only with `guests` has it the kernel for them. */
  static async build(guests: boolean): Promise<MachineParts> {
    return { dom0: await dom0(), guest: guests ? await guestKernel() : undefined };
  }

  /** Starts it. */
  constructor(parts: MachineParts) {
    const log = join(this.share, 'xen.log');
    process.stderr.write(`xen rig: boot; Xen's console is in ${log}\n`);
    for (const name of ['xen', 'vmlinuz', 'initrd', 'root.img'])
      symlinkSync(join(parts.dom0, name), join(this.share, name));
    const qemu = qemuWords(this.share, parts.guest ?? this.share);
    this.#qemu = new Program(
      'xen',
      'setpriv',
      ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemu],
      (line) => appendFileSync(log, `${line}\n`),
    );
  }

  /** Resolves when it takes jobs. */
  async ready(): Promise<void> {
    await this.#qemu.says(/^GRANTIO ready/);
    process.stderr.write(`xen rig: boot: ${((Date.now() - this.#began) / 1000).toFixed(1)} s\n`);
  }

  /** Switches the machine off. */
  async stop(): Promise<void> {
    writeFileSync(join(this.share, 'stop'), '');
    await Promise.race([this.#qemu.ended(), delay(STOP_LIMIT, undefined, { ref: false })]);
    this.kill();
  }

  /** Ends the machine at once. */
  kill(): void {
    this.#qemu.kill();
  }

  /** Removes the share with all that is logged in it. */
  remove(): void {
    rmSync(this.share, { recursive: true, force: true, maxRetries: 3 });
  }
}

function qemuWords(share: string, guest: string): string[] {
  const file = (name: string): string => join(share, name);
  return [
    ...['-accel', 'tcg,thread=multi', '-machine', 'q35', '-smp', '2', '-m', '4096'],
    ...['-cpu', 'EPYC,+svm,+npt,-smap,-smep,-monitor,-rdtscp,-xsave,-avx,-avx2,-fma,-f16c'],
    ...['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio'],
    ...[
      '-kernel',
      file('xen'),
      '-append',
      'com1=115200,8n1 console=com1 dom0_mem=1536M dom0_max_vcpus=1 sched=credit ' +
        'cpuidle=0 bootscrub=0 guest_loglvl=all',
    ],
    ...['-initrd', `${file('vmlinuz')} console=hvc0 rdinit=/init quiet panic=-1,${file('initrd')}`],
    ...['-drive', `file=${file('root.img')},format=raw,if=none,id=root,snapshot=on`],
    ...['-device', 'virtio-blk-pci,drive=root'],
    ...['-virtfs', `local,path=${share},mount_tag=share,security_model=none`],
    ...['-virtfs', `local,path=${guest},mount_tag=guest,security_model=none,readonly=on`],
  ];
}
