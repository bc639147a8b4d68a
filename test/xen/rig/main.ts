// The rig as a program: starts Xen, lets something run in its first domain or beside it, and switches it off.
//   node dist/test/xen/rig/main.js --shell COMMANDS | --job FILE | --run HOST_COMMAND | --keep | --build
// With --without-guests the guests' kernel, which takes long to compile, is neither built nor there.
// Where the variable GRANTIO_XEN names the share of a machine that runs (--keep prints it), jobs go there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { dom0 } from './dom0.ts';
import { guestKernel } from './guest-kernel.ts';
import { Machine } from './machine.ts';
import { startJob } from './share.ts';

const { values } = parseArgs({
  options: {
    shell: { type: 'string' },
    job: { type: 'string' },
    run: { type: 'string' },
    keep: { type: 'boolean' },
    build: { type: 'boolean' },
    'without-guests': { type: 'boolean' },
  },
});

/** Runs a script in the first domain, for as long as it takes, and passes on what it says. Resolves with its exit status. */
async function runJob(share: string, script: string): Promise<number> {
  const job = startJob(share, script);
  const ended = job.ended(Number.POSITIVE_INFINITY);
  let status: number | undefined;
  ended.then((value) => {
    status = value;
  });
  while (status === undefined) {
    process.stdout.write(job.output.read());
    await delay(50);
  }
  process.stdout.write(job.output.read());
  return status;
}

/** Runs a command of the host's beside the machine. Resolves with its exit status. */
async function runBeside(share: string, command: string): Promise<number> {
  const child = spawn('bash', ['-c', command], {
    stdio: 'inherit',
    env: { ...process.env, GRANTIO_XEN: share },
  });
  const [status] = await once(child, 'close');
  return typeof status === 'number' ? status : 1;
}

async function withMachine(work: (share: string) => Promise<number>): Promise<number> {
  const machine = await Machine.boot(!values['without-guests']);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      machine.kill();
      process.exit(1);
    });
  try {
    const status = await work(machine.share);
    await machine.stop();
    if (status === 0) machine.remove();
    else process.stderr.write(`xen rig: the logs are kept in ${machine.share}\n`);
    return status;
  } finally {
    machine.kill();
  }
}

async function main(): Promise<number> {
  const script = values.job === undefined ? values.shell : readFileSync(values.job, 'utf8');
  const running = process.env['GRANTIO_XEN'];
  if (script !== undefined && running) return runJob(running, script);
  if (script !== undefined) return withMachine((share) => runJob(share, script));
  const command = values.run;
  if (command !== undefined) return withMachine((share) => runBeside(share, command));
  if (values.keep)
    return withMachine(async (share) => {
      process.stderr.write(`xen rig: running until Ctrl-C; export GRANTIO_XEN=${share}\n`);
      await new Promise(() => setInterval(() => undefined, 2 ** 30));
      return 0;
    });
  await dom0();
  await guestKernel();
  return 0;
}

process.exitCode = await main();
