// `grantio run`: a virtual host in this process, from an xl.cfg file or from options.
// Before run-plan.ts (what is asked for), run-copy.ts (the main job) and run-nbd.ts (real clients).

import { type Command, Option } from 'commander';
import { ARCHITECTURES } from '../hosts/model/address-map.ts';
import { EXPOSURE_MODES } from '../dma/exposure-modes.ts';
import { GUEST } from '../parallel/virtual-host.ts';
import { createDemoDisk } from './demo-disk.ts';
import { sizeInBytes, wholeNumber } from './option-values.ts';
import { runCopy } from './run-copy.ts';
import { runNbd } from './run-nbd.ts';
import { MAX_MEMORY, MIN_MEMORY, planRun, type RunOptions, type RunPlan } from './run-plan.ts';
import { onInterrupt } from './signals.ts';
import { TraceOutput } from './trace-output.ts';
import { UsageError } from './usage.ts';

const HELP = `
What it does:
  Boots the embedded Xen with a backend domain and a guest, and attaches virtio disks through grants.
  Without --nbd and --run it copies each disk through the guest's driver, once in each exposure mode,
  checks every byte against the image, and prints what the backend could see meanwhile.

Exposure modes:
  direct  the whole pages that hold the buffers, as Linux does
  bounce  a pool of private pages that hold only the device's live bytes

Examples:
  grantio run                                     a demonstration on a disk of its own
  grantio run --disk image.raw --json             the same on your image, for a program
  grantio run guest.cfg                           disk=[...] and so on from a guest configuration
  grantio run --disk image.raw --nbd /tmp/s       the disk as the guest sees it, for NBD clients
  grantio run --disk a.img --nbd /tmp/s --control /tmp/c
                                                  and meanwhile: grantio ctl /tmp/c plug b.img
  grantio run --disk a.img --run 'nbdcopy "$uri" b.img'

Exit status:
  0  done, or ended by a signal while serving; with --run, the command's own status
  1  it failed: an image is missing or unusable, a byte differs, a copy was interrupted
  2  the call was wrong; nothing was started`;

/** Adds the command to the program. */
export function addRunCommand(program: Command): void {
  program
    .command('run')
    .summary('run a guest with disks served through grants')
    .description('Run a guest whose disks are served through grants, and see what their backend can reach.')
    .argument('[guest.cfg]', 'guest configuration as xl reads it (xl.cfg)')
    .option('--disk <path[,ro]>', 'serve this raw image; may be given again', collect, [])
    .addOption(
      new Option('--mode <mode>', 'exposure mode (default: each in turn; bounce with --nbd)').choices(
        EXPOSURE_MODES,
      ),
    )
    .addOption(
      new Option(
        '--arch <arch>',
        "the machine's architecture (default: arm; x86 for a guest of type hvm)",
      ).choices(ARCHITECTURES),
    )
    .option('--queues <n>', 'request queues of each disk', wholeNumber(1, 64), 1)
    .option('--queue-size <n>', 'descriptors of a queue, a power of two', queueSize, 128)
    .option('--memory <size>', "the guest's memory, such as 64M", sizeInBytes(MIN_MEMORY, MAX_MEMORY))
    .option('--nbd <socket|host:port>', 'export the disks, as the guest sees them, over NBD')
    .option(
      '--control <socket>',
      'plug and unplug devices meanwhile, with `grantio ctl`; needs --nbd or --run',
    )
    .option('--run <command>', 'run a shell command with $uri, $nbd and $unixsocket set, then shut down')
    .option('--trace <file>', 'write every event to a file for ui.perfetto.dev')
    .option('--json', 'print the result as one JSON document')
    .addHelpText('after', HELP)
    .action(async (config: string | undefined, options: RunOptions) => {
      process.exitCode = await run(config, options);
    });
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

function queueSize(text: string): number {
  const size = wholeNumber(4, 32768)(text);
  if ((size & (size - 1)) !== 0) throw new UsageError(`--queue-size ${size}: expected a power of two`);
  return size;
}

/** Does what was asked for. Returns the exit status. */
async function run(configFile: string | undefined, options: RunOptions): Promise<number> {
  const serving = options.nbd !== undefined || options.run !== undefined;
  const needsDemo = configFile === undefined && options.disk.length === 0;
  // The plan is made before the demonstration disk: a wrong call makes nothing.
  if (options.control !== undefined && !serving)
    throw new UsageError('--control: devices come and go while clients are served; add --nbd or --run');
  const plan = planRun(configFile, options, (text) => process.stderr.write(`${text}\n`));
  if (!needsDemo && plan.disks.length === 0)
    throw new UsageError(`${configFile}: the guest has no disk to serve`);
  const demo = needsDemo ? createDemoDisk() : undefined;
  const disks = demo ? [{ path: demo.path, readOnly: false, dev: 'xvda' }] : plan.disks;
  const interruption = onInterrupt();
  let trace: TraceOutput | undefined;
  try {
    // Served disks are served in one mode.
    const modes: RunPlan['modes'] = serving ? [options.mode ?? 'bounce'] : plan.modes;
    const job: RunPlan = { ...plan, disks, modes };
    if (options.trace !== undefined) trace = new TraceOutput(options.trace, job, GUEST);
    if (serving) return await runNbd(job, options, trace, interruption);
    return await runCopy(job, options, trace, interruption);
  } finally {
    interruption.release();
    trace?.close();
    demo?.remove();
  }
}
