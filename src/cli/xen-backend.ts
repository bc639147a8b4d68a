// `grantio xen-backend`: virtio devices for the guests of a real Xen host, from the driver domain in which it runs.
// Before xen-backend-plan.ts.

import type { Command } from 'commander';
import type { GivenOptions, ServeOption } from './serve-options.ts';
import { UsageError } from './usage.ts';
import { type GivenPlace, PLACE_OPTIONS, planXenBackend, XEN_OPTIONS } from './xen-backend-plan.ts';
import { runXenBackend } from './xen-backend-run.ts';

const HELP = `
Without --domain it serves the virtio devices that xl announces in xenstore for backends in this domain, of any number
of guests, as they come and go. In xl.cfg:
  disk   = [ "format=raw, vdev=xvda, access=rw, specification=virtio, grant_usage=1, target=/srv/root.img" ]
  virtio = [ "type=virtio,device4, transport=mmio, grant_usage=1" ]               (4 entropy, 3 console)
The toolstack says of each device whether it is restricted to what the guest grants (grant_usage), and the guest has no
say in it. A device that cannot be served has the reason in its backend's node "error".

With --domain it attaches to one guest by hand, and ends when that guest does:
  grantio xen-backend --domain 3 --mmio 0xd0000000,irq=5 --disk root.img --mmio 0xd0000200,irq=10 --rng
  The guest's kernel, an x86 HVM guest's, is told by
  virtio_mmio.device=512@0xd0000000:5 virtio_mmio.device=512@0xd0000200:10

It needs root, the modules xen-gntdev, xen-evtchn and xen-privcmd, and guests of the kind HVM on x86, or any on Arm;
docs/xen-backend.md says how to set up a host. It stays in the foreground, says what happens on standard error, and ends
on SIGTERM, SIGINT and SIGHUP: what was taken is served, what was written is flushed, and guests wait at the registers of
their devices for the next backend, as they do when this one is killed. With --state none their devices are closed.

Exit status:
  0  ended by a signal, or with the guest of --domain
  1  it failed: this is no domain of Xen, an image is unusable, a guest cannot be served, koffi is not installed
  2  the call was wrong; nothing was started`;

/** Adds the command to the program. */
export function addXenBackendCommand(program: Command): void {
  const command = program
    .command('xen-backend')
    .summary('serve devices to the guests of a real Xen host')
    .description('Serve virtio devices to the guests of a real Xen host, from the domain in which this runs.')
    .addHelpText('after', HELP);
  const places: GivenPlace[] = [];
  for (const { name, value, help } of [...PLACE_OPTIONS, ...XEN_OPTIONS]) {
    if (value === undefined) command.option(`--${name}`, help);
    else
      command.option(`--${name} ${value}`, help, (text: string, before: string[] = []) => [...before, text]);
  }
  for (const { name } of PLACE_OPTIONS)
    command.on(`option:${name}`, (text?: string) => places.push({ name, value: text ?? true }));
  command.action(async () => {
    process.exitCode = await runXenBackend(planXenBackend(givenTo(command, XEN_OPTIONS), places));
  });
}

function givenTo(command: Command, options: readonly ServeOption[]): GivenOptions {
  const values = command.opts<Record<string, string[] | true | undefined>>();
  const given: Record<string, string | true> = {};
  for (const { name } of options) {
    const value = values[name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())];
    if (value === undefined) continue;
    if (value !== true && value.length > 1) throw new UsageError(`--${name} is given twice`);
    given[name] = value === true ? true : value[0];
  }
  return given;
}
