// `grantio run`: a virtual host in this process, from an xl.cfg file or from options.
// Before run-plan.ts (what is asked for), run-copy.ts (the main job) and run-nbd.ts (real clients).

import { type Command, Option } from 'commander';
import { ARCHITECTURES } from '../hosts/model/address-map.ts';
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { EXPOSURE_MODES } from '../dma/exposure-modes.ts';
import { GRANT_POLICIES } from '../dma/policy.ts';
import { GUEST } from '../parallel/host-options.ts';
import { createDemoDisk } from './demo-disk.ts';
import { sizeInBytes, wholeNumber } from './option-values.ts';
import { runBackend } from './run-backend.ts';
import { runCopy } from './run-copy.ts';
import { Decisions } from './run-decisions.ts';
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
  direct      the whole pages that hold the buffers, as Linux does
  bounce      a pool of private pages that hold only the device's live bytes
  persistent  the same pool, whose pages stay granted for up to 100 ms after use
  copy        exactly the bytes of the buffers; the backend copies them and can map nothing (not on Arm)
  auto        long buffers of whole pages themselves, all others as persistent

Policy, for each device (default: as its grant_usage says, and require where nothing is said):
  require  a device that does not use grants, or of which no source says who serves it, is refused
  prefer   grants where a source names the backend, all of the guest's memory where none knows of grants
  forbid   no grants: the backend reaches all of the guest's memory

Examples:
  grantio run                                     a demonstration on a disk of its own
  grantio run --disk image.raw --json             the same on your image, for a program
  grantio run guest.cfg                           disk=[...] and so on from a guest configuration
  grantio run --explain                           why each device is, or is not, used through grants
  grantio run --disk image.raw --nbd /tmp/s       the disk as the guest sees it, for NBD clients
  grantio run --disk a.img --nbd /tmp/s --control /tmp/c
                                                  and meanwhile: grantio ctl /tmp/c plug b.img
  grantio run --disk a.img --run 'nbdcopy "$uri" b.img'
  grantio run --dma-debug                         as a kernel with CONFIG_DMA_API_DEBUG
  grantio run --backend vhost-user:/tmp/blk.sock  reads the disk that another program serves there, such as
                                                  qemu-storage-daemon, and shows it nothing but a window

Exit status:
  0  done, or ended by a signal while serving; with --run, the command's own status
  1  it failed: an image is missing or unusable, a device is refused, a byte differs, a copy was interrupted,
     --dma-debug found an error
  2  the call was wrong; nothing was started`;

/** Adds the command to the program. */
export function addRunCommand(program: Command): void {
  program
    .command('run')
    .summary('run a guest with disks served through grants')
    .description('Run a guest whose disks are served through grants, and see what their backend can reach.')
    .argument('[guest.cfg]', 'guest configuration as xl reads it (xl.cfg)')
    .option('--disk <path[,ro]>', 'serve this raw image; may be given again', collect, [])
    .option(
      '--backend <vhost-user:socket>',
      'use the disk that another program serves there, sharing a window of memory with it and nothing else; --disk is then the image to compare it with',
    )
    .option(
      '--reconnect <seconds>',
      'with --backend: wait so long for a backend that has gone, and ask it again',
      wholeNumber(0, 600),
    )
    .addOption(
      new Option('--mode <mode>', 'exposure mode (default: each in turn; bounce with --nbd)').choices(
        EXPOSURE_MODES,
      ),
    )
    .addOption(
      new Option(
        '--arch <arch>',
        "the machine's architecture (default: x86; arm for a guest.cfg whose type is not hvm)",
      ).choices(ARCHITECTURES),
    )
    .addOption(new Option('--grants <policy>', "the guest's policy for its devices").choices(GRANT_POLICIES))
    .option(
      '--backend-id <domid>',
      "the backend's domain id as the guest's own configuration has it; the other sources must agree",
      wholeNumber(0, DOMID_FIRST_RESERVED - 1),
    )
    .option('--explain', "print how each device may reach the guest's memory, and why")
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
    .option('--dma-debug', 'watch what drivers do with their mappings, and report misuse')
    .option(
      '--dma-debug-driver <name>',
      'the same, but report only this driver or device (virtio_blk, virtio0)',
    )
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
  if (options.backend !== undefined) return runBackend(options.backend, configFile, options);
  if (options.reconnect !== undefined)
    throw new UsageError('--reconnect: only a backend of its own process can go away; add --backend');
  const serving = options.nbd !== undefined || options.run !== undefined;
  const needsDemo = configFile === undefined && options.disk.length === 0;
  // The plan is made before the demonstration disk: a wrong call makes nothing.
  if (options.control !== undefined && !serving)
    throw new UsageError('--control: devices come and go while clients are served; add --nbd or --run');
  const plan = planRun(configFile, options, (text) => process.stderr.write(`${text}\n`));
  if (!needsDemo && plan.disks.length === 0)
    throw new UsageError(`${configFile}: the guest has no disk to serve`);
  const demo = needsDemo ? createDemoDisk() : undefined;
  const disks = demo
    ? [{ path: demo.path, readOnly: false, dev: 'xvda', grantUsage: !plan.withoutGrants }]
    : plan.disks;
  const interruption = onInterrupt();
  let trace: TraceOutput | undefined;
  try {
    // Served disks are served in one mode.
    const modes: RunPlan['modes'] = serving ? [options.mode ?? 'bounce'] : plan.modes;
    const job: RunPlan = { ...plan, disks, modes };
    const decisions = new Decisions(job, explanationStream(options));
    if (options.trace !== undefined) trace = new TraceOutput(options.trace, job, GUEST);
    if (serving) return await runNbd(job, options, trace, interruption, decisions);
    return await runCopy(job, options, trace, interruption, decisions);
  } finally {
    interruption.release();
    trace?.close();
    demo?.remove();
  }
}

/** Where explanations go as text: with --json they are in the document; standard output is the command's of --run. */
function explanationStream({ explain, json, nbd, run }: RunOptions): ((text: string) => void) | undefined {
  if (explain !== true || json === true) return undefined;
  const stream = nbd !== undefined || run !== undefined ? process.stderr : process.stdout;
  return (text) => stream.write(text);
}
