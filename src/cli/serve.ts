// `grantio serve`: a device for a virtual machine, over vhost-user, by the conventions that QEMU documents for
// backend programs (docs/interop/vhost-user.rst, "Backend program conventions"). Before serving/vhost-server.ts.

import { availableParallelism } from 'node:os';
import { type Command, Option } from 'commander';
import { Arena } from '../hosts/linux/arena.ts';
import { listenOn } from '../hosts/linux/fd-socket.ts';
import { loadLibc } from '../hosts/linux/libc.ts';
import { placeSocket } from '../hosts/linux/unix-socket.ts';
import { type DeviceSpec, IMAGE_ENGINES, type ImageEngine } from '../serving/devices.ts';
import { VhostServer } from '../serving/vhost-server.ts';
import { wholeNumber } from './option-values.ts';
import { onInterrupt } from './signals.ts';

/** Options that every device has. */
interface ServeOptions {
  readonly socketPath: string;
  readonly workers: number;
  readonly pollUs: number;
}

interface BlkOptions extends ServeOptions {
  readonly disk: string;
  readonly readOnly?: true;
  readonly direct?: true;
  readonly engine: ImageEngine;
  readonly queues: number;
  readonly queueSize: number;
}

/** Adds the command to the program. */
export function addServeCommand(program: Command): void {
  const serve = program.command('serve').summary('serve a device to a virtual machine over vhost-user');
  withCommon(serve.command('blk').summary('a disk'))
    .requiredOption('--disk <path>', 'raw image')
    .option('--read-only', 'the guest may not write')
    .option('--direct', "past the host's page cache (O_DIRECT)")
    .addOption(
      new Option('--engine <engine>', 'how the image is read and written')
        .choices(IMAGE_ENGINES)
        .default('auto'),
    )
    .option('--queues <n>', 'request queues', wholeNumber(1, 64), 1)
    .option('--queue-size <n>', 'descriptors of a queue, a power of two', wholeNumber(4, 32768), 256)
    .action((options: BlkOptions) => {
      const { disk: path, readOnly = false, queues, queueSize } = options;
      const { direct = false, engine } = options;
      return run(options, {
        ...{ kind: 'blk', path, readOnly, direct, engine, queues, queueSize, id: 'grantio' },
      });
    });
  withCommon(serve.command('rng').summary('a source of entropy')).action((options: ServeOptions) =>
    run(options, { kind: 'rng' }),
  );
}

function withCommon(command: Command): Command {
  return command
    .requiredOption('--socket-path <path>', 'Unix socket to listen on')
    .option(
      '--workers <n>',
      'threads that serve queues',
      wholeNumber(1, 64),
      Math.min(availableParallelism(), 8),
    )
    .option(
      '--poll-us <n>',
      'longest time to poll an idle queue, in microseconds',
      wholeNumber(0, 10_000),
      50,
    );
}

async function run(options: ServeOptions, device: DeviceSpec): Promise<void> {
  const libc = loadLibc();
  let fd = -1;
  const remove = await placeSocket(options.socketPath, async (name) => {
    fd = listenOn(libc, new Arena(libc, 4096), name);
  });
  const interruption = onInterrupt('ending the connections');
  const ended = new Promise<void>((resolve) => {
    const server = new VhostServer({
      workers: options.workers,
      pollMicroseconds: options.pollUs,
      restricted: false,
      sealed: false,
      onNotice: ({ level, device: name, message, clause }) =>
        process.stderr.write(`grantio serve: ${level}: ${name}: ${message}${clause ? ` (${clause})` : ''}\n`),
      onEnd: resolve,
    });
    server.add({ name: device.kind, device, fd, listening: true }).catch((error: Error) => {
      process.stderr.write(`grantio serve: ${error.message}\n`);
      process.exitCode = 1;
      void server.end();
    });
    interruption.onSignal(() => void server.end());
  });
  await ended;
  interruption.release();
  await remove();
}
