// The rig as a program: starts Xen, lets something run in its first domain or beside it, and switches it off.
//   node dist/test/xen/rig/main.js --shell COMMANDS | --job FILE | --run HOST_COMMAND | --keep | --build
// With --without-guests the guests' kernel, which takes long to compile, is neither built nor there. With --machines N
// there are so many, for --run and --keep, so that tests can run side by side. Where the variable GRANTIO_XEN names
// the share of a machine that runs (--keep prints it), jobs go there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { dom0 } from './dom0.ts';
import { guestKernel } from './guest-kernel.ts';
import { Machine } from './machine.ts';
import { runningShares } from './running.ts';
import { startJob } from './share.ts';

const { values } = parseArgs({
  options: {
    shell: { type: 'string' },
    job: { type: 'string' },
    run: { type: 'string' },
    keep: { type: 'boolean' },
    build: { type: 'boolean' },
    machines: { type: 'string', default: '1' },
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

/** Runs a command of the host's beside the machines. Resolves with its exit status. */
async function runBeside(shares: string, command: string): Promise<number> {
  const child = spawn('bash', ['-c', command], {
    stdio: 'inherit',
    env: { ...process.env, GRANTIO_XEN: shares },
  });
  const [status] = await once(child, 'close');
  return typeof status === 'number' ? status : 1;
}

/** Lets `work`, which gets the shares as GRANTIO_XEN has them, run beside `count` machines. */
async function withMachines(count: number, work: (shares: string) => Promise<number>): Promise<number> {
  const machines: Machine[] = [];
  const kill = (): void => {
    for (const machine of machines) machine.kill();
  };
  /** Removes the logs, or says where they are. */
  const settleLogs = (remove: boolean): void => {
    if (remove) for (const machine of machines) machine.remove();
    else
      process.stderr.write(
        `xen rig: the logs are kept in ${machines.map(({ share }) => share).join(' and ')}\n`,
      );
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      kill();
      settleLogs(values.keep ?? false);
      process.exit(1);
    });
  try {
    const parts = await Machine.build(!values['without-guests']);
    for (let made = 0; made < count; made++) machines.push(new Machine(parts));
    await Promise.all(machines.map((machine) => machine.ready()));
    const shares = machines.map(({ share }) => share).join(':');
    const status = await work(shares);
    await Promise.all(machines.map((machine) => machine.stop()));
    settleLogs(status === 0);
    return status;
  } finally {
    kill();
  }
}

async function main(): Promise<number> {
  const script = values.job === undefined ? values.shell : readFileSync(values.job, 'utf8');
  const [running] = runningShares();
  if (script !== undefined && running) return runJob(running, script);
  if (script !== undefined) return withMachines(1, (share) => runJob(share, script));
  const count = Number(values.machines);
  const command = values.run;
  if (command !== undefined) return withMachines(count, (shares) => runBeside(shares, command));
  if (values.keep)
    return withMachines(count, async (shares) => {
      process.stderr.write(`xen rig: running until Ctrl-C; export GRANTIO_XEN=${shares}\n`);
      await new Promise(() => setInterval(() => undefined, 2 ** 30));
      return 0;
    });
  await dom0();
  await guestKernel();
  return 0;
}

process.exitCode = await main();
