// `grantio ctl`: plugs and unplugs devices of a guest that `grantio run --control` runs. The other end is
// control-socket.ts.

import { connect } from 'node:net';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import {
  type ControlAnswer,
  type ControlDevice,
  type ControlRequest,
  LineReader,
} from './control-protocol.ts';
import { UsageError } from './usage.ts';

const HELP = `
What to do:
  plug PATH[,ro]   give the guest a disk on this raw image; with ,ro it cannot be written
  plug --entropy   give it an entropy device
  unplug DEVICE    take a device away, such as xvdb: its clients get their last replies, and it is flushed
  list             the devices that the guest has now

Exit status:
  0  done
  1  it failed: nobody listens at the socket, the image is unusable, there is no such device
  2  the call was wrong`;

/** Adds the command to the program. */
export function addCtlCommand(program: Command): void {
  program
    .command('ctl')
    .summary('plug and unplug devices of a running guest')
    .description('Plug and unplug devices of a guest that runs with `grantio run --control SOCKET`.')
    .argument('<socket>', 'the socket of --control')
    .argument('<action>', 'plug, unplug or list')
    .argument('[device]', 'an image to plug, or the name of a device to unplug')
    .option('--entropy', 'plug an entropy device')
    .option('--json', 'print the answer as it came')
    .addHelpText('after', HELP)
    .action(async (socket: string, action: string, device: string | undefined, options: CtlOptions) => {
      process.exitCode = await ctl(socket, requestFor(action, device, options), options);
    });
}

interface CtlOptions {
  readonly entropy?: boolean;
  readonly json?: boolean;
}

function requestFor(action: string, device: string | undefined, { entropy }: CtlOptions): ControlRequest {
  if (action === 'list' && device === undefined && !entropy) return { list: true };
  if (action === 'plug' && entropy && device === undefined) return { plug: 'entropy' };
  if (action === 'unplug' && device && !entropy) return { unplug: device };
  if (action === 'plug' && device && !entropy) {
    const readOnly = device.endsWith(',ro');
    // The other end may stand in another folder.
    return { plug: { path: resolve(readOnly ? device.slice(0, -3) : device), readOnly } };
  }
  throw new UsageError(
    `ctl ${[action, device].join(' ').trim()}: expected plug PATH[,ro], plug --entropy, unplug DEVICE or list`,
  );
}

/** Asks and prints the answer. Returns the exit status. */
async function ctl(path: string, request: ControlRequest, { json }: CtlOptions): Promise<number> {
  const line = await ask(path, `${JSON.stringify(request)}\n`);
  const answer = JSON.parse(line) as ControlAnswer;
  if (json) process.stdout.write(`${line}\n`);
  if ('error' in answer) {
    if (!json) process.stderr.write(`grantio: ${answer.error}\n`);
    return 1;
  }
  if (!json) process.stdout.write(inWords(answer));
  return 0;
}

function inWords(answer: Exclude<ControlAnswer, { error: string }>): string {
  if ('devices' in answer) return answer.devices.map(lineOf).join('');
  if ('plugged' in answer) return lineOf(answer.plugged);
  const { dev, orderly } = answer.unplugged;
  return orderly
    ? `${dev}  unplugged\n`
    : `${dev}  taken away: guest or backend did not let go of it in time\n`;
}

function lineOf({ dev, kind, path, readOnly, uris }: ControlDevice): string {
  const what = kind === 'disk' ? [path, ...(readOnly ? ['read-only'] : [])] : [kind];
  return `${[dev, ...what, ...uris].join('  ')}\n`;
}

/** Sends a line, and resolves to the line that comes back. */
function ask(path: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const reader = new LineReader();
    const fail = (why: string, cause?: Error) =>
      reject(
        new Error(`control socket ${path}: ${why}; is it that of a running grantio run --control?`, {
          cause,
        }),
      );
    socket.setEncoding('utf8');
    socket.on('error', (error) => fail(error.message, error));
    socket.on('close', () => fail('closed without an answer'));
    socket.on('data', (chunk: string) => {
      const [answer] = reader.add(chunk) ? reader.take() : [];
      if (answer === undefined) return;
      resolve(answer);
      socket.destroy();
    });
    socket.write(line);
  });
}
