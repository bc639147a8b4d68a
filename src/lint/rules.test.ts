// Each rule with files that break it and files that keep it, and the place where it is broken.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALL_RULES } from './all-rules.ts';
import { lintFiles } from './lint.ts';

type Files = Readonly<Record<string, string>>;

interface Example {
  readonly bad: Files;
  /** What stands in the file from the place of the rule's first finding on. */
  readonly at: string;
  /** What its message has to say. */
  readonly says: RegExp;
  readonly good: Files;
  readonly forceGrants?: boolean;
}

/** A configuration of `lines` behind a name. */
function cfg(...lines: string[]): Files {
  return { 'g.cfg': `name = "g"\n${lines.join('\n')}\n` };
}

/** Virtio devices of a configuration, each with `parts` besides what it needs. */
function virtio(...devices: string[]): string {
  return `virtio = [${devices.map((parts) => `"type=virtio,device1,transport=mmio,${parts}"`).join(', ')}]`;
}

/** A virtio-mmio node with `properties` besides what it needs. */
function node(index: number, properties: string): string {
  const base = 0x2000000 + index * 0x200;
  return `virtio@${base.toString(16)} { compatible = "virtio,mmio"; reg = <0 0x${base.toString(16)} 0 0x200>;
    interrupts = <0 ${index + 1} 0xf01>; dma-coherent; ${properties} };`;
}

const HYPERVISOR =
  'hypervisor { compatible = "xen,xen-4.19", "xen,xen"; reg = <0 0x38000000 0 0x1000000>; interrupts = <1 15 0xf08>; };';
const IOMMU = 'xen_iommu: xen_iommu { compatible = "xen,grant-dma"; #iommu-cells = <1>; };';

/** A guest's tree of `lines`. */
function bareTree(...lines: string[]): Files {
  return {
    'g.dts': `/dts-v1/; / { compatible = "xen,xenvm-4.19", "xen,xenvm"; #address-cells = <2>; #size-cells = <2>;\n${lines.join('\n')}\n};\n`,
  };
}

/** A guest's tree of `lines` with hypervisor and iommu node. */
function tree(...lines: string[]): Files {
  return bareTree(...lines, HYPERVISOR, IOMMU);
}

const GRANTS = 'iommus = <&xen_iommu 1>;';

/** What libxl writes for a virtio device of guest 5 that domain 1 serves, with `changes`; undefined removes a line. */
function store(changes: Readonly<Record<string, string | undefined>> = {}, ...more: string[]): Files {
  const back = '/local/domain/1/backend/virtio/5/0';
  const front = '/local/domain/5/device/virtio/0';
  const values: Record<string, string | undefined> = {
    [`${back}/frontend`]: front,
    [`${back}/frontend-id`]: '5',
    [`${back}/online`]: '1',
    [`${back}/state`]: '1',
    [`${back}/irq`]: '33',
    [`${back}/base`]: '0x2000000',
    [`${back}/type`]: 'virtio,device22',
    [`${back}/transport`]: 'mmio',
    [`${back}/grant_usage`]: '1',
    [`${front}/backend`]: back,
    [`${front}/backend-id`]: '1',
    '/libxl/5/device/virtio/0/backend': back,
  };
  for (const [path, value] of Object.entries(changes))
    values[path.startsWith('/') ? path : `${back}/${path}`] = value;
  const lines = Object.entries(values).flatMap(([path, value]) =>
    value === undefined ? [] : `${path} = "${value}"`,
  );
  return { 'x.txt': `${[...lines, ...more].join('\n')}\n` };
}

const DISK = (parts: string) => `disk = ["/dev/vg/a,raw,xvda,rw,${parts}"]`;
const MMIO_DISK = DISK('specification=virtio');
const GRANT_DEVICES = (count: number) => virtio(...Array.from({ length: count }, () => 'backend=1'));

const EXAMPLES: Readonly<Record<string, Example>> = {
  'virtio-guest-type': {
    bad: cfg('type = "hvm"', MMIO_DISK),
    at: '"hvm"',
    says: /of type "hvm"/,
    good: cfg('type = "pvh"', MMIO_DISK),
  },
  'virtio-arm-no-hotplug': {
    bad: cfg(GRANT_DEVICES(3)),
    at: '"type=',
    says: /this device and 2 more/,
    good: cfg(DISK('specification=xen')),
  },
  'virtio-device-id': {
    bad: cfg('virtio = ["type=virtio,device34,transport=mmio"]'),
    at: 'virtio,device34',
    says: /device34 is id 52, which is not assigned/,
    good: {
      ...cfg('virtio = ["type=virtio,device22,transport=mmio"]'),
      ...tree(node(0, `${GRANTS} gpio { compatible = "virtio,device29"; };`)),
    },
  },
  'qemu-iommu-platform': {
    bad: cfg('device_model_args = ["-device", "virtio-blk-device,drive=d"]'),
    at: '"virtio-blk-device',
    says: /does not offer ACCESS_PLATFORM/,
    good: cfg('device_model_args = ["-device", "virtio-blk-device,drive=d,iommu_platform=on"]'),
  },
  'qemu-force-legacy': {
    bad: cfg('device_model_args = ["-device", "virtio-blk-device,iommu_platform=on"]'),
    at: '"virtio-blk-device',
    says: /old version/,
    good: cfg(
      'device_model_args = ["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-blk-device,iommu_platform=on"]',
    ),
  },
  'virtio-disk-backendtype': {
    bad: cfg(DISK('specification=virtio,backendtype=qdisk')),
    at: 'qdisk',
    says: /backendtype=qdisk with specification=virtio/,
    good: cfg(DISK('specification=virtio,backendtype=standalone')),
  },
  'virtio-disk-format': {
    bad: cfg('disk = ["/dev/vg/a,qcow2,xvda,rw,specification=virtio"]'),
    at: 'qcow2',
    says: /has format qcow2/,
    good: cfg(MMIO_DISK),
  },
  'virtio-disk-file': {
    bad: cfg('disk = ["/images/a.img,raw,xvda,rw,specification=virtio"]'),
    at: '/images/a.img',
    says: /is the file `\/images\/a.img`/,
    good: cfg('disk = ["/images/a.img,raw,xvda,rw,specification=virtio,backend=1"]'),
  },
  'grant-usage-ignored': {
    bad: cfg(DISK('grant_usage=1')),
    at: '1"]',
    says: /does nothing/,
    good: cfg(DISK('specification=virtio,grant_usage=1')),
  },
  'disk-specifications-mixed': {
    bad: cfg('disk = ["/dev/a,raw,xvda,rw,specification=virtio",', '"/dev/b,raw,xvdb,rw"]'),
    at: '"/dev/b',
    says: /xvdb has specification=xen, xvda has virtio/,
    good: cfg('disk = ["/dev/a,raw,xvda,rw", "/dev/b,raw,xvdb,rw"]'),
  },
  'grants-off-untrusted': {
    bad: cfg(DISK('specification=virtio,untrusted')),
    at: 'untrusted',
    says: /untrusted, and its backend reaches all/,
    good: cfg(DISK('specification=virtio,untrusted,grant_usage=1')),
  },
  'grants-off-driver-domain': {
    bad: cfg(virtio('backend=disks,grant_usage=0')),
    at: '0"]',
    says: /served by domain `disks` without grants/,
    good: cfg(virtio('backend=disks')),
  },
  'grants-mixed': {
    bad: tree(node(0, GRANTS), node(1, '')),
    at: 'virtio@2000200',
    says: /\/virtio@2000200 does not use grants, but \/virtio@2000000 does/,
    good: tree(node(0, GRANTS), node(1, GRANTS)),
  },
  'grants-forced': {
    bad: bareTree(node(0, '')),
    at: 'virtio@2000000',
    says: /does not use grants/,
    good: tree(node(0, GRANTS)),
    forceGrants: true,
  },
  'backend-own-domain': {
    bad: cfg(virtio('backend=g')),
    at: 'g"]',
    says: /the guest itself/,
    good: cfg(virtio('backend=h')),
  },
  'grant-table-size': {
    bad: cfg('max_grant_frames = 1', GRANT_DEVICES(1)),
    at: '1',
    says: /1 frames x 512 - 8 = 504 references; 3 queues x \(256 \+ 3\) = 777 are needed/,
    good: cfg('max_grant_frames = 2', GRANT_DEVICES(1)),
  },
  'grant-region': {
    bad: cfg('max_grant_frames = 4097', MMIO_DISK),
    at: '4097',
    says: /is 4097; the region holds 4096/,
    good: cfg('max_grant_frames = 4096', MMIO_DISK),
  },
  'grant-version-arm': {
    bad: cfg('max_grant_version = 2', MMIO_DISK),
    at: '2',
    says: /is 2; Xen on Arm offers 1/,
    good: cfg('max_grant_version = 1', MMIO_DISK),
  },
  'backend-maptrack': {
    bad: { ...cfg(virtio('backend=disks')), 'disks.cfg': 'name = "disks"\nmax_maptrack_frames = 3\n' },
    at: '3',
    says: /3 frames x 256 = 768 mappings; 3 queues x \(256 \+ 3\) = 777/,
    good: { ...cfg(virtio('backend=disks')), 'disks.cfg': 'name = "disks"\nmax_maptrack_frames = 4\n' },
  },
  'virtio-mmio-slots': {
    bad: cfg(GRANT_DEVICES(12)),
    at: '"type=virtio,device1,transport=mmio,backend=1"]',
    says: /number 12; there is room for 11/,
    good: cfg(GRANT_DEVICES(11)),
  },
  'virtio-mmio-eleventh': {
    bad: cfg(GRANT_DEVICES(11)),
    at: '"type=virtio,device1,transport=mmio,backend=1"]',
    says: /interrupt 43, the eleventh; QEMU knows ten/,
    good: cfg(GRANT_DEVICES(10)),
  },
  'virtio-mmio-window': {
    bad: tree(node(0, GRANTS).replace('reg = <0 0x2000000', 'reg = <0 0x2100000')),
    at: 'reg = <0 0x2100000',
    says: /at 0x2100000, outside of the window/,
    good: {
      ...tree(node(0, GRANTS)),
      'other.dts':
        '/dts-v1/; / { virtio@a000000 { compatible = "virtio,mmio"; reg = <0 0xa000000 0x200>; interrupts = <0 16 0xf01>; dma-coherent; }; };',
    },
  },
  'virtio-mmio-irq': {
    bad: store({ irq: '44' }),
    at: '44"',
    says: /has interrupt 44; expected 33 to 43/,
    good: store(),
  },
  'virtio-mmio-overlap': {
    bad: tree(node(0, GRANTS), node(1, GRANTS).replace('0 2 0xf01', '0 1 0xf01')),
    at: 'interrupts = <0 1',
    says: /has interrupt 33, as \/virtio@2000000 has/,
    good: tree(node(0, GRANTS), node(1, GRANTS)),
  },
  'virtio-mmio-passthrough-irq': {
    bad: cfg('irqs = [40, 33]', MMIO_DISK),
    at: '33]',
    says: /interrupt `33` is that of a virtio device/,
    good: cfg('irqs = [34]', MMIO_DISK),
  },
  'virtio-mmio-nr-spis': {
    bad: cfg('nr_spis = 3', GRANT_DEVICES(3)),
    at: '3',
    says: /nr_spis is `3`; the virtio devices need 4/,
    good: cfg('nr_spis = 4', GRANT_DEVICES(3)),
  },
  'hypervisor-node': {
    bad: bareTree(node(0, GRANTS), IOMMU),
    at: '/dts-v1/',
    says: /there is no node \/hypervisor/,
    good: tree(node(0, GRANTS)),
  },
  'dma-coherent': {
    bad: tree(node(0, GRANTS).replace('dma-coherent;', '')),
    at: 'virtio@2000000',
    says: /\/virtio@2000000 is not dma-coherent/,
    good: tree(node(0, GRANTS)),
  },
  'virtio-mmio-interrupt': {
    bad: tree(node(0, GRANTS).replace('0xf01', '0xf04')),
    at: 'interrupts = <0 1 0xf04',
    says: /is not edge rising/,
    good: tree(node(0, GRANTS)),
  },
  phandle: {
    bad: tree('a { phandle = <7>; }; b { phandle = <7>; };'),
    at: 'phandle = <7>; };',
    says: /\/b has the phandle 7, as \/a has/,
    good: tree('a { phandle = <7>; }; b { phandle = <8>; };'),
  },
  'partial-tree-phandle': {
    bad: { 'p.dts': '/dts-v1/; / { passthrough { d { phandle = <65001>; }; }; };' },
    at: 'phandle = <65001>',
    says: /\/passthrough\/d has the phandle 65001/,
    good: { 'p.dts': '/dts-v1/; / { passthrough { d { phandle = <1>; }; }; };' },
  },
  'iommus-form': {
    bad: tree(node(0, 'iommus = <&xen_iommu>;')),
    at: 'iommus',
    says: /iommus has 1 cells/,
    good: tree(node(0, GRANTS)),
  },
  'iommus-target': {
    bad: tree(node(0, 'iommus = <99 1>;')),
    at: 'iommus',
    says: /phandle 99, which no node has/,
    good: tree(node(0, GRANTS)),
  },
  'iommus-domain': {
    bad: tree('pcie { iommu-map = <0 &xen_iommu 0x7fef 2>; };'),
    at: 'iommu-map',
    says: /0x7ff0, one of the ids that name no ordinary domain/,
    good: tree('pcie { iommu-map = <0 &xen_iommu 0x7fef 1>; };'),
  },
  'iommu-map-length': {
    bad: tree('pcie { iommu-map = <8 &xen_iommu 3 2>; };'),
    at: 'iommu-map',
    says: /requester 0x9 goes to domain 4$/,
    good: tree('pcie { iommu-map = <8 &xen_iommu 3 1>, <9 &xen_iommu 3 1>; };'),
  },
  'iommu-map-overlap': {
    bad: tree('pcie { iommu-map = <8 &xen_iommu 3 1>, <8 &xen_iommu 4 1>; };'),
    at: 'iommu-map',
    says: /requester 0x8 is in two entries/,
    good: tree('pcie { iommu-map = <9 &xen_iommu 3 1>, <8 &xen_iommu 4 1>; };'),
  },
  'grant-dma-doubled': {
    bad: tree(node(0, GRANTS), 'second { compatible = "xen,grant-dma"; #iommu-cells = <1>; };'),
    at: 'xen_iommu {',
    says: /\/xen_iommu is a second node "xen,grant-dma" beside \/second/,
    good: tree(node(0, GRANTS)),
  },
  'grant-dma-unused': {
    bad: tree(node(0, '')),
    at: 'xen_iommu {',
    says: /no device refers to \/xen_iommu/,
    good: tree(node(0, GRANTS)),
  },
  'xenstore-keys': {
    bad: store({ grant_usage: undefined }),
    at: '/local/domain/1/backend/virtio/5/0/frontend',
    says: /has no grant_usage/,
    good: store(),
  },
  'xenstore-base': {
    bad: store({ base: '33554432' }),
    at: '33554432"',
    says: /is `33554432`, not hexadecimal with 0x/,
    good: store(
      {},
      ...Object.entries({
        frontend: '/local/domain/5/device/virtio_disk/51712',
        'frontend-id': '5',
        state: '1',
        irq: '34',
        base: '33554944',
        params: '/dev/a',
        mode: 'w',
        specification: 'virtio',
        transport: 'mmio',
        grant_usage: '1',
      }).map(([name, value]) => `/local/domain/1/backend/virtio_disk/5/51712/${name} = "${value}"`),
    ),
  },
  'xenstore-values': {
    bad: store({ grant_usage: 'yes' }),
    at: 'yes"',
    says: /grant_usage of .* is `yes`; expected 0 or 1/,
    good: store(),
  },
  'xenstore-type': {
    bad: store({ type: 'virtio' }),
    at: 'virtio"',
    says: /is `virtio`; expected "virtio,device<id>"/,
    good: store(),
  },
  'xenstore-domain': {
    bad: store({ 'frontend-id': '6' }),
    at: '6"',
    says: /is `6`, but the path says 5/,
    good: store(),
  },
  'xenstore-no-backend': {
    bad: { 'x.txt': '/local/domain/5/device/virtio/0/state = "1"\n' },
    at: '/local/domain/5',
    says: /has no backend directory/,
    good: store(),
  },
  'xenstore-frontend-keys': {
    bad: store({}, '/local/domain/5/device/virtio/0/grant_usage = "0"'),
    at: '/local/domain/5/device/virtio/0/grant_usage',
    says: /the directory of the frontend of virtio device 0 of domain 5 has grant_usage/,
    good: store(),
  },
  'xenstore-frontend-backend': {
    bad: store({ '/local/domain/5/device/virtio/0/backend': '/local/domain/0/backend/virtio/5/0' }),
    at: '/local/domain/0/backend',
    says: /the toolstack wrote \/local\/domain\/1/,
    good: store(),
  },
  'xenstore-copy-differs': {
    bad: store({}, '/libxl/5/device/virtio/0/base = "0x2000200"'),
    at: '0x2000000"',
    says: /base of .* is `0x2000000`; the toolstack wrote `0x2000200`/,
    good: store({}, '/libxl/5/device/virtio/0/base = "0x2000000"'),
  },
  'xenstore-two-backends': {
    bad: store({}, '/local/domain/9/backend/virtio/5/0/state = "1"'),
    at: '/local/domain/9',
    says: /domain 9 has a backend directory .* chose domain 1/,
    good: store(),
  },
  'xenstore-permissions': {
    bad: store({}, '/libxl/5/device/virtio/0/base = "0x2000000"   (n0,b5)'),
    at: '/libxl/5',
    says: /domain 5 may write \/libxl/,
    good: store(
      { base: undefined },
      '/libxl/5/device/virtio/0/base = "0x2000000" . .  (n0,r5)',
      '/local/domain/1/backend/virtio/5/0/base = "0x2000000" . .  (n1,r5)',
      '/local/domain/5/device/virtio/0/state = "1" . .  (n5,r1)',
    ),
  },
  'devices-disagree': {
    bad: {
      ...cfg('virtio = ["backend=1,type=virtio,device22,transport=mmio"]'),
      ...tree(node(0, 'iommus = <&xen_iommu 2>;')),
    },
    at: 'iommus = <&xen_iommu 2>',
    says: /is served by domain 2; in g\.cfg, line 2, it is served by domain 1/,
    good: {
      ...cfg('virtio = ["backend=1,type=virtio,device22,transport=mmio"]'),
      ...tree(node(0, GRANTS)),
      ...store(),
    },
  },
};

/** The findings of one rule about `files`. */
function findingsOf(rule: string, files: Files, forceGrants = false) {
  const inputs = Object.entries(files).map(([path, text]) => ({
    path,
    bytes: new TextEncoder().encode(text),
  }));
  return lintFiles(inputs, { forceGrants }).filter((finding) => finding.rule === rule);
}

for (const { id, why } of ALL_RULES)
  test(`rule ${id}: breaks where it should, and only there`, () => {
    const example = EXAMPLES[id];
    assert.ok(example, `the rule ${id} has no example`);
    const [first] = findingsOf(id, example.bad, example.forceGrants);
    assert.ok(first, 'no finding about the bad example');
    const found = example.bad[first.file]!.split('\n')[first.line - 1]!.slice(first.column - 1);
    assert.ok(found.startsWith(example.at), `expected ${example.at}, found ${found}`);
    assert.match(first.message, example.says);
    assert.equal(first.why, why);
    assert.deepEqual(findingsOf(id, example.good, example.forceGrants), []);
  });

test('every example is of a rule, and the examples for good have no other error', () => {
  const ids = new Set(ALL_RULES.map(({ id }) => id));
  assert.equal(ids.size, ALL_RULES.length);
  for (const [id, { good }] of Object.entries(EXAMPLES)) {
    assert.ok(ids.has(id), id);
    const inputs = Object.entries(good).map(([path, text]) => ({
      path,
      bytes: new TextEncoder().encode(text),
    }));
    const errors = lintFiles(inputs).filter(({ severity }) => severity === 'error');
    const known = new Set([
      'grants-mixed',
      'virtio-mmio-passthrough-irq',
      'qemu-force-legacy',
      'devices-disagree',
    ]);
    assert.deepEqual(
      errors.filter(({ rule }) => !known.has(rule)).map(({ rule, message }) => `${id}: ${rule}: ${message}`),
      [],
    );
  }
});
