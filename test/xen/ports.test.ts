// The contracts of Xen's ports on a real Xen: what contract.ts and registers.ts do in the first domain.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkout } from './rig/checkout.ts';
import { xenTest } from './rig/xen-test.ts';

const LINKER_FLAGS = '-Wl,-N,--no-warn-rwx-segments,--build-id=none,-Ttext=0x100000';
const NOTE_FLAGS = '-Wl,--section-start=.note.Xen=0x100100';

/** The program of a guest that does what a test says. */
function guestProgram(): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  try {
    const program = join(folder, 'registers');
    const words = ['-m32', '-nostdlib', '-static', LINKER_FLAGS, NOTE_FLAGS, '-o', program];
    const { status, stderr } = spawnSync('cc', [...words, checkout('test/xen/guest/registers.S')]);
    assert.equal(status, 0, `cc: ${stderr}`);
    return readFileSync(program);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

xenTest('grants are mapped and copied, and events sent, as the ports promise', async (xen) => {
  assert.match(await xen.run('node --test-reporter=tap dist/test/xen/contract.js'), /^# fail 0$/m);
});

xenTest('a guest’s registers are served as the port promises, and a PVH guest’s are refused', async (xen) => {
  const program = await xen.put('registers', guestProgram());
  const said = await xen.run(`
    create() { # NAME TYPE LINES
      printf '%s\\n' "name=\\"$1\\"" "type=\\"$2\\"" 'memory=64' 'vcpus=1' 'tsc_mode="native"' "$3" >/run/$1.cfg
      xl create -p /run/$1.cfg >&2
      xl domid $1
    }
    trap 'xl destroy registers; xl destroy pvh' EXIT
    hvm=$(create registers hvm 'firmware_override="${program}"
bios_path_override="/etc/passwd"
device_model_override="/share/dom0/device-model"
vga="none"
vnc=0
vkb_device=0')
    pvh=$(create pvh pvh 'kernel="${program}"')
    node --test-reporter=tap dist/test/xen/registers.js $hvm $pvh ${program}`);
  assert.match(said, /^# fail 0$/m);
});
