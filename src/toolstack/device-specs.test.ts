import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiskSpec } from './disk-spec.ts';
import { parseDiskSpec } from './disk-spec.ts';
import { Findings } from './finding.ts';
import { parseVirtioSpec, usesGrants, type VirtioSpec } from './virtio-spec.ts';
import type { XlAtom } from './xl-cfg-parser.ts';

function atomOf(text: string): XlAtom {
  return { kind: 'string', text, escapes: [], line: 1, column: 1 };
}

function disk(text: string): { spec: Omit<DiskSpec, 'at'> | undefined; findings: string[] } {
  const findings = new Findings('f');
  const whole = parseDiskSpec(atomOf(text), findings);
  if (whole === undefined) return { spec: undefined, findings: shown(findings) };
  const { at: _at, ...spec } = whole;
  return { spec, findings: shown(findings) };
}

function virtio(text: string): { spec: VirtioSpec | undefined; findings: string[] } {
  const findings = new Findings('f');
  const spec = parseVirtioSpec(atomOf(text), findings);
  return { spec, findings: shown(findings) };
}

/** Columns are those of the text in its quotes, the opening quote being column 1. */
function shown(findings: Findings): string[] {
  return findings.list.map(({ column, severity, message }) => `${column}: ${severity}: ${message}`);
}

const plain = {
  target: '/dev/vg/guest-volume',
  format: 'raw',
  vdev: 'hda',
  access: 'rw',
  cdrom: false,
  backend: 0,
  backendtype: undefined,
  specification: 'xen',
  grantUsage: undefined,
  trusted: true,
  discard: undefined,
  script: undefined,
};

for (const text of [
  '/dev/vg/guest-volume,,hda',
  '/dev/vg/guest-volume,raw,hda,rw',
  'format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume',
  ' vdev=hda,/dev/vg/guest-volume,',
  ',raw,hda,target=/dev/vg/guest-volume',
])
  test(`disk: one disk, written as ${text}`, () => {
    assert.deepEqual(disk(text), { spec: plain, findings: [] });
  });

const medium = { ...plain, target: '/root/image.iso', vdev: 'hdc', access: 'ro', cdrom: true };

for (const text of [
  '/root/image.iso,,hdc,cdrom',
  '/root/image.iso,,hdc,,cdrom',
  '/root/image.iso,raw,hdc,devtype=cdrom',
  'format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso',
])
  test(`disk: one CD-ROM, written as ${text}`, () => {
    assert.deepEqual(disk(text), { spec: medium, findings: [] });
  });

test('disk: the syntax of xend is read and pointed out', () => {
  assert.deepEqual(disk('raw:/root/image.iso,hdc:cdrom,ro'), {
    spec: medium,
    findings: ["2: warning: the prefix `raw:` is of xend's syntax"],
  });
  assert.deepEqual(disk(',hdc:cdrom,r').spec, { ...medium, target: undefined, format: 'empty' });
  assert.equal(disk('tap:aio:qcow2:/a,xvda,w').spec?.format, 'qcow2');
  assert.equal(disk('nbd:host:1,xvda,w').spec?.script, 'block-nbd');
});

test('disk: target= takes the rest of the string, less one comma at its end', () => {
  assert.equal(disk('vdev=xvda,target=/a, b=c,raw').spec?.target, '/a, b=c,raw');
  assert.equal(disk('vdev=xvda,target=/a,').spec?.target, '/a');
});

test('disk: every part of a virtio disk', () => {
  const { spec, findings } = disk(
    '/dev/vg/a,raw,xvda,r,backend=storage,backendtype=standalone,specification=virtio,grant_usage=0,untrusted,no-discard',
  );
  assert.deepEqual(findings, []);
  assert.deepEqual(spec, {
    ...plain,
    target: '/dev/vg/a',
    vdev: 'xvda',
    access: 'ro',
    backend: 'storage',
    backendtype: 'standalone',
    specification: 'virtio',
    grantUsage: false,
    trusted: false,
    discard: false,
  });
});

const diskFindings: readonly [text: string, finding: string][] = [
  ['/a,raw,vda,w', '9: error: libxl knows no vdev `vda`'],
  ['/a,raw', '1: error: a disk needs a vdev'],
  ['vdev=xvda', '1: error: a disk needs a target'],
  ['/a,rwa,xvda', '5: error: `format` cannot be `rwa`'],
  ['/a,raw,xvda,w,rw', '16: error: `rw` is one part too many'],
  ['/a,raw,xvda,backendtyp=phy', '14: error: a disk has no part `backendtyp=phy`'],
  ['/a=b,raw,xvda', '2: error: a disk has no part `/a=b`'],
  ['/a,raw,xvda,vdev=xvdb', '19: error: `vdev` is given twice: `xvda` and `xvdb`'],
  [
    '/a,raw,xvda,w,grant_usage=yes',
    '28: error: `grant_usage` cannot be `yes`: xl takes any word for 0, or refuses it',
  ],
  ['/a,raw,xvda,w,backend=32752', '24: error: no domain has the id `32752`: ids end at 32751'],
  ['/a,raw,xvda,w,transport=mmio', '26: warning: xl refuses `transport` in a disk'],
  ['/a,raw,xvda,w,transport=pci', '26: error: the transport cannot be `pci`'],
  ['/a,raw,xvda,w,trusted=0', '16: warning: xl refuses `trusted=`'],
  [
    'rbd:/pool/a,raw,xvda',
    '2: error: xl takes the start of `rbd:/pool/a` for a prefix that it does not know',
  ],
  ['/a,raw,hdc:cdrom,x', '19: error: `access` cannot be `x`'],
  ['/a,raw,xvda,readonly', '14: warning: xl has no flag `readonly` for disks'],
  ['x'.repeat(8193), '1: error: the description has 8193 characters; at most 8192 are read'],
];

for (const [text, finding] of diskFindings)
  test(`disk: ${text.slice(0, 60)} gives a finding at its place`, () => {
    const { findings } = disk(text);
    assert.ok(findings.includes(finding), findings.join('\n'));
  });

test('virtio: the comma in `type` belongs to the type, wherever it stands', () => {
  for (const text of [
    'backend=1,type=virtio,device22,transport=mmio,grant_usage=0',
    'type=virtio,device22,backend=1,grant_usage=0,transport=mmio',
    'transport=mmio, grant_usage=0, backend=1, type=virtio,device22',
  ]) {
    const { spec, findings } = virtio(text);
    assert.deepEqual(findings, []);
    const { at: _at, ...parts } = spec!;
    assert.deepEqual(parts, {
      backend: 1,
      type: 'virtio,device22',
      deviceId: 0x22,
      transport: 'mmio',
      grantUsage: false,
    });
  }
  assert.equal(virtio('type=virtio,device,transport=mmio').spec?.deviceId, undefined);
});

test('virtio: a type without its device does not swallow the next part', () => {
  assert.deepEqual(virtio('type=virtio,transport=mmio').findings, [
    '7: error: the type `virtio` is not "virtio,device<id>", the id in lower-case hexadecimal without 0x',
  ]);
});

test('virtio: grants are on by default unless domain 0 serves the device', () => {
  const device = (text: string) => usesGrants(virtio(`type=virtio,device1,transport=mmio${text}`).spec!);
  assert.deepEqual(
    ['', ',backend=0', ',backend=Domain-0', ',backend=3', ',backend=disks', ',backend=0,grant_usage=1'].map(
      device,
    ),
    [false, false, false, true, true, true],
  );
  assert.equal(device(',backend=3,grant_usage=0'), false);
});

const virtioFindings: readonly [text: string, finding: string][] = [
  ['', '1: error: a virtio device needs a type'],
  [
    'type=virtio,device1',
    '1: error: without a transport libxl gives the device neither registers nor an interrupt, and says nothing',
  ],
  ['type=virtio,device1,transport=pci', '32: error: the transport cannot be `pci`'],
  [
    'type=virtio,device1A,transport=mmio',
    '7: error: the type `virtio,device1A` is not "virtio,device<id>", the id in lower-case hexadecimal without 0x',
  ],
  [
    'type=blk,transport=mmio',
    '7: error: the type `blk` is not "virtio,device<id>", the id in lower-case hexadecimal without 0x',
  ],
  ['type=virtio,device1,transport=mmio,bakend=1', '37: error: a virtio device has no part `bakend=1`'],
  [
    'type=virtio,device1,transport=mmio,grant_usage=true',
    '49: error: `grant_usage` cannot be `true`: xl takes any word for 0, or refuses it',
  ],
  [
    'type=virtio,device1,transport=mmio,backend=1,backend=2',
    '55: error: `backend` is given twice: `1` and `2`',
  ],
];

for (const [text, finding] of virtioFindings)
  test(`virtio: "${text}" gives a finding at its place`, () => {
    assert.ok(virtio(text).findings.includes(finding), virtio(text).findings.join('\n'));
  });
