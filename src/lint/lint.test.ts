import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { writeBlob } from '../toolstack/device-tree/blob-writer.ts';
import { guestTree, virtioMmioSlot } from '../toolstack/device-tree/guest-tree.ts';
import { domainId } from '../xen/ids.ts';
import { formatJson, formatSarif } from './format-json.ts';
import { formatText } from './format-text.ts';
import { lintFiles } from './lint.ts';
import { type InputFile, kindOf } from './files.ts';

function file(path: string, content: string | Uint8Array): InputFile {
  return { path, bytes: typeof content === 'string' ? new TextEncoder().encode(content) : content };
}

const CONFIG = file(
  'guest.cfg',
  `name = "guest"
type = "pvh"
memory = 1024
disk = [ "/dev/vg/root,raw,xvda,rw,specification=virtio,backend=1" ]
virtio = [ "backend=1,type=virtio,device22,transport=mmio" ]
`,
);

/** The blob that libxl would build for CONFIG, its first device served by `backend`. */
function blob(backend: number): InputFile {
  const tree = guestTree({
    xenVersion: { major: 4, minor: 19 },
    memory: 1024,
    vcpus: 1,
    gic: 'v3',
    addressBits: 40,
    devices: [
      { ...virtioMmioSlot(0)!, type: undefined, grantsTo: domainId(backend) },
      { ...virtioMmioSlot(1)!, type: 'virtio,device22', grantsTo: domainId(1) },
    ],
  });
  return file('guest.dtb', writeBlob(tree));
}

test('what libxl makes of a configuration agrees with it', () => {
  const findings = lintFiles([CONFIG, blob(1)]);
  assert.deepEqual(
    findings.map(({ rule }) => rule),
    ['virtio-arm-no-hotplug'],
  );
});

test('each kind of file is known by its content', () => {
  assert.equal(kindOf(CONFIG), 'xl-cfg');
  assert.equal(kindOf(blob(1)), 'device-tree');
  assert.equal(kindOf(file('x', '// a comment\n/dts-v1/;\n')), 'device-tree');
  assert.equal(kindOf(file('x', '/tool/xenstored:\n\n')), 'xenstore');
  assert.equal(kindOf(file('x', '')), 'xl-cfg');
});

test('findings of readers and rules come sorted by file and place', () => {
  const findings = lintFiles([
    file('b.cfg', 'name = "b"\nx = 1\nvirtio = [ "type=virtio,device34,transport=mmio" ]\n'),
    file('a.dtb', Uint8Array.of(0xd0, 0x0d, 0xfe, 0xed)),
  ]);
  assert.deepEqual(
    findings.map(({ file, line, rule, severity }) => [file, line, rule, severity]),
    [
      ['a.dtb', 1, 'device-tree', 'error'],
      ['b.cfg', 2, 'xl-cfg', 'error'],
      ['b.cfg', 3, 'virtio-arm-no-hotplug', 'note'],
      ['b.cfg', 3, 'virtio-device-id', 'warning'],
    ],
  );
});

test('a rule that finds the same everywhere is cut short', () => {
  const nodes = Array.from(
    { length: 300 },
    (_, index) => `v@${index} { compatible = "virtio,mmio"; interrupts = <0 1 1>; };`,
  );
  const findings = lintFiles([file('x.dts', `/dts-v1/; / { ${nodes.join(' ')} };`)]);
  assert.equal(findings.filter(({ rule }) => rule === 'dma-coherent').length, 100);
});

test('the text has the line and a caret below the place', () => {
  const bad = file(
    'g.cfg',
    'name = "g"\n\tvirtio = [ "type=virtio,device34,transport=mmio,backend=\u001bx" ]\n',
  );
  const text = formatText(
    lintFiles([bad]).filter(({ rule }) => rule === 'virtio-device-id'),
    [bad],
  );
  assert.equal(
    text,
    `g.cfg:2:19: warning: device34 is id 52, which is not assigned [virtio-device-id]
 2 |  virtio = [ "type=virtio,device34,transport=mmio,backend=\\x1bx" ]
   |                   ^
  why: The id is written in hexadecimal without 0x; virtio 1.3 counts devices in decimal. The file system, 26, is device1a; device26 is 38.
  help: for the I2C adapter, 34, write device22

1 file: 0 errors, 1 warning, 0 notes
`,
  );
});

test('a long line is shown around the place only, and a blob not at all', () => {
  const bad = file('g.cfg', `name = "g"; ${' '.repeat(500)}zzz = 1;${' '.repeat(500)}\n`);
  const [, line, caret] = formatText(lintFiles([bad]), [bad]).split('\n');
  assert.equal(line!.length, ' 1 | '.length + 100);
  assert.equal(line!.slice(caret!.indexOf('^')).startsWith('zzz = 1'), true);
  const broken = file('g.dtb', Uint8Array.of(0xd0, 0x0d, 0xfe, 0xed));
  assert.match(
    formatText(lintFiles([broken]), [broken]),
    /^g\.dtb:1:5: error: 4 bytes hold no header.*\n {2}why: /,
  );
});

test('JSON holds the findings as they are', () => {
  const findings = lintFiles([CONFIG, blob(3)]);
  assert.deepEqual(JSON.parse(formatJson(findings)), {
    version: 1,
    counts: { error: 1, warning: 0, note: 1 },
    findings,
  });
});

test('SARIF has what version 2.1.0 requires, and each result points to its rule', () => {
  const files = [
    file('a b/é#.cfg', 'x = 1\n'),
    file('/tmp/y.dtb', Uint8Array.of(0xd0, 0x0d, 0xfe, 0xed)),
    CONFIG,
  ];
  const log = JSON.parse(formatSarif(lintFiles(files), files));
  assert.equal(log.version, '2.1.0');
  const [run] = log.runs;
  assert.equal(run.tool.driver.name, 'grantio');
  assert.equal(run.columnKind, 'utf16CodeUnits');
  for (const rule of run.tool.driver.rules) {
    assert.ok(rule.id && rule.shortDescription.text && rule.fullDescription.text);
    assert.ok(['error', 'warning', 'note'].includes(rule.defaultConfiguration.level));
  }
  const places = run.results.map((result: SarifResult) => {
    assert.equal(run.tool.driver.rules[result.ruleIndex].id, result.ruleId);
    assert.ok(result.message.text && ['error', 'warning', 'note'].includes(result.level));
    return [
      result.locations[0]!.physicalLocation.artifactLocation.uri,
      result.locations[0]!.physicalLocation.region,
    ];
  });
  assert.deepEqual(places.slice(0, 2), [
    ['file:///tmp/y.dtb', { byteOffset: 4, byteLength: 0 }],
    ['a%20b/%C3%A9%23.cfg', { startLine: 1, startColumn: 1 }],
  ]);
});

/** What the test reads of a result. */
interface SarifResult {
  readonly ruleId: string;
  readonly ruleIndex: number;
  readonly level: string;
  readonly message: { readonly text: string };
  readonly locations: readonly {
    readonly physicalLocation: {
      readonly artifactLocation: { readonly uri: string };
      readonly region: object;
    };
  }[];
}

test('any files end in findings inside them', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 80 }),
    fc
      .array(
        fc.constantFrom(
          'disk',
          'virtio',
          '=',
          '[',
          ']',
          '"',
          'type=virtio,device1',
          ',',
          'transport=mmio',
          'backend=1',
          '\n',
          'specification=virtio',
          '/a,raw,xvda,w,',
          'irqs',
          'nr_spis',
        ),
        { maxLength: 30 },
      )
      .map((words) => words.join('')),
    fc
      .array(
        fc.tuple(
          fc.constantFrom(
            '/local/domain/1/backend/virtio/5/0/',
            '/libxl/5/device/virtio/0/',
            '/local/domain/5/device/virtio_disk/9/',
          ),
          fc.constantFrom('base', 'irq', 'type', 'backend', 'grant_usage'),
          fc.string(),
        ),
        { maxLength: 8 },
      )
      .map((lines) => lines.map(([path, name, value]) => `${path}${name} = "${value}"`).join('\n')),
    fc
      .array(
        fc.constantFrom(
          'a { ',
          '}; ',
          'compatible = "virtio,mmio"; ',
          'compatible = "xen,grant-dma"; ',
          'iommus = <1 2>; ',
          'iommu-map = <1 2 3 4>; ',
          'phandle = <1>; ',
          'reg = <0 0x2000000 0 1>; ',
          'interrupts = <0 1 1>; ',
          'reg; ',
        ),
        { maxLength: 12 },
      )
      .map((words) => `/dts-v1/; / { ${words.join('')} };`),
  );
  fc.assert(
    fc.property(fc.array(text, { maxLength: 3 }), fc.boolean(), (texts, forceGrants) => {
      const files = texts.map((content, index) => file(`${index}`, content));
      const findings = lintFiles(files, { forceGrants });
      for (const { file: name, line, column } of findings) {
        const lines = texts[Number(name)]!.split('\n');
        assert.ok(line >= 1 && line <= lines.length && column >= 1 && column <= lines[line - 1]!.length + 1);
      }
      formatText(findings, files);
      JSON.parse(formatSarif(findings, files));
    }),
    { seed: 10, numRuns: 1000 },
  );
});
