import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Findings, formatFinding, quoted } from './finding.ts';
import { readXlConfig, surveyXlConfig } from './xl-cfg.ts';
import { parseSettings, printSettings, type XlSetting, type XlValue } from './xl-cfg-parser.ts';

/** The findings about `text`, each as `line:column: severity: message`. */
function findingsOf(text: string): string[] {
  return surveyXlConfig(text, 'f').findings.map(
    ({ line, column, severity, message }) => `${line}:${column}: ${severity}: ${message}`,
  );
}

const GUEST = `# a driver-domain guest
name = "guest1"; type = 'pvh'
memory = 0x200
vcpus = 2
max_grant_frames = 128
kernel = "/boot/Image"
disk = [
  "/dev/vg/root,raw,xvda,rw,backend=1,specification=virtio", # the root
  'format=qcow2, vdev=xvdb, access=ro, target=/images/a,b=c.qcow2',
]
virtio = [ "backend=drivers,type=virtio,device22,transport=mmio,grant_usage=1" ]
`;

test('a whole configuration is read, with every value at its place', () => {
  const { config, findings } = readXlConfig(GUEST, 'guest.cfg');
  assert.deepEqual(findings, []);
  assert.ok(config);
  const { name, type, memory, maxmem, vcpus, maxGrantFrames, maxMaptrackFrames, maxGrantVersion } = config;
  assert.deepEqual(
    { name, type, memory, maxmem, vcpus, maxGrantFrames, maxMaptrackFrames, maxGrantVersion },
    {
      name: 'guest1',
      type: 'pvh',
      memory: 512,
      maxmem: undefined,
      vcpus: 2,
      maxGrantFrames: 128,
      maxMaptrackFrames: undefined,
      maxGrantVersion: undefined,
    },
  );
  assert.equal(config.disks.length, 2);
  assert.deepEqual(config.disks[0]!.at.backend, { line: 8, column: 37 });
  assert.equal(config.disks[1]!.target, '/images/a,b=c.qcow2');
  assert.deepEqual(config.virtio[0]!.at.type, { line: 11, column: 34 });
  assert.equal(config.virtio[0]!.type, 'virtio,device22');
  assert.deepEqual(
    { ...config.settings.get('type')!, value: 0 },
    { key: 'type', operator: '=', value: 0, line: 2, column: 18 },
  );
});

test('the last setting of a key counts, and the one that it replaces is named', () => {
  const { config, findings } = readXlConfig('name="a"\nmemory=1\nmemory=2\n', 'f');
  assert.equal(config?.memory, 2);
  assert.deepEqual(findings.map(formatFinding), ['f:3:1: warning: this replaces `memory` of line 2']);
});

test('+= adds to lists and strings and to nothing else', () => {
  const text = 'name="a"\nname+="b"\nirqs+=[1]\nirqs+=[2,3]\n';
  const { config, findings } = readXlConfig(text, 'f');
  assert.deepEqual(findings, []);
  assert.equal(config?.name, 'ab');
  const irqs = config?.settings.get('irqs')?.value;
  assert.deepEqual(irqs?.kind === 'list' && irqs.items.map((item) => item.kind !== 'list' && item.text), [
    '1',
    '2',
    '3',
  ]);
  assert.deepEqual(findingsOf('name="a"\nname+=["b"]\n'), [
    '2:1: error: `name`: a list and a single value cannot be added',
  ]);
});

test('O1: an unknown key is an error with its place and the nearest known one', () => {
  const { config, findings } = readXlConfig(
    'name="a"\n  max_grant_frame = 4\nzzz = 1\ngrant_usage = 1\n',
    'f',
  );
  assert.equal(config, undefined);
  assert.deepEqual(
    findings.map(({ line, column, help }) => [line, column, help]),
    [
      [2, 3, 'did you mean `max_grant_frames`?'],
      [3, 1, undefined],
      [4, 1, 'it belongs to a device: disk = [ "…,grant_usage…" ] or virtio = [ "…,grant_usage…" ]'],
    ],
  );
});

test('O1: two disks with one vdev are an error', () => {
  assert.deepEqual(findingsOf('name="a"\ndisk=[ "/a,raw,xvda,rw",\n"/b,raw,xvda,rw" ]\n'), [
    '3:9: error: the vdev xvda is taken by the disk of line 2',
  ]);
});

// Each of these was shown to xl's own libxlutil (4.17), which refuses it as well.
const refused: readonly [text: string, finding: string][] = [
  ['name="a" # end', '1:10: error: xl refuses a comment on a last line that has no line break'],
  ['name="a\\x41"\n', '1:8: error: xl loses characters that are written by number, like `\\x`'],
  ['name="a\\q"\n', '1:8: error: `\\q` in a string means nothing to xl'],
  ['name="a"\r\n', '1:9: error: a line ends in a carriage return, which xl refuses'],
  ['\ufeffname="a"\n', '1:1: error: the file starts with a byte order mark'],
  ['name="a"\nMemory=1\n', '2:1: error: `Memory=1`: names are in lower case, and text stands in quotes'],
  ['name="a"\nmemory=512M\n', '2:11: error: a number cannot be followed by `M`'],
  ['name="a"\nmemory=2*256\n', '2:9: error: `*256` is not a value'],
  ['name="a"\nacpi=True\n', '2:6: error: `True` is not a value'],
  [
    'name="a"\nkernel="x\ny"\n',
    '2:8: error: the string that starts with `"x` has no closing quote on its line',
  ],
  ['name=guest\n', '1:6: error: expected a number, a "string" or a [list], found `guest`'],
  [
    'name="a"\nvcpus=1 memory=2\n',
    '2:9: error: expected the end of the line or `;` after the value, found `memory`',
  ],
  [
    'name="a"\nvcpus=\n1\n',
    '2:7: error: expected a number, a "string" or a [list], found the end of the line',
  ],
  ['name="a"\nirqs=[1,,]\n', '2:9: error: expected a number, a "string" or a [list], found `,`'],
  ['name="a"\nirqs=[1 2]\n', '2:9: error: expected `,` or `]` in the list, found `2`'],
  ['name="a"\nirqs=[1;2]\n', '2:8: error: expected `,` or `]` in the list, found `;`'],
  ['name="a"\nirqs=[1\n', '3:1: error: expected `,` or `]` in the list, found the end of the file'],
  ['name="a"\n=1\n', '2:1: error: expected the name of a setting, found `=`'],
];

for (const [text, finding] of refused)
  test(`refused, as by xl: ${JSON.stringify(text)}`, () => {
    assert.ok(findingsOf(text).includes(finding), findingsOf(text).join('\n'));
    assert.equal(readXlConfig(text, 'f').config, undefined);
  });

test('one mistake in a long list gives one finding, and reading goes on after it', () => {
  assert.deepEqual(findingsOf('name="a"\ndisk=[ "x" "y",\n "z",\n]\nmemory=0\n'), [
    '2:12: error: expected `,` or `]` in the list, found `y`',
    '5:8: error: `memory` is 0; expected 1 to 2147483647',
  ]);
});

test('numbers are read as by strtol, and a leading 0 is pointed out', () => {
  assert.equal(readXlConfig('name="a"\nmemory="0x10"\n', 'f').config?.memory, 16);
  assert.equal(readXlConfig('name="a"\nmemory=0512\n', 'f').config?.memory, 330);
  assert.deepEqual(findingsOf('name="a"\nmemory=0512\n'), [
    '2:8: warning: 0512 is octal, because of its leading 0: 330',
  ]);
  assert.deepEqual(findingsOf('name="a"\nmemory=09\n'), ['2:8: error: `memory` takes a number, not `09`']);
  assert.deepEqual(findingsOf('name="a"\nmemory=[1]\n'), [
    '2:8: error: `memory` takes a single value, not a list',
  ]);
});

test('maxmem may be what memory is', () => {
  assert.equal(readXlConfig('name="a"\nmemory=8; maxmem=8\n', 'f').config?.maxmem, 8);
});

test('values that cannot be are reported where they stand', () => {
  assert.deepEqual(
    findingsOf('type="qemu"\nmemory=8; maxmem=4\nmax_grant_version=3\ndisk="/a,raw,xvda"\nvirtio=[["x"]]\n'),
    [
      '1:1: error: the guest has no name',
      '1:6: error: the type of a guest cannot be `qemu`',
      '2:18: error: maxmem is 4, below memory, which is 8',
      '3:19: error: `max_grant_version` is 3; expected 1 to 2',
      '4:6: error: `disk` takes a list and xl passes over a single value',
      '5:9: error: an element of `virtio` is a string, not a list',
    ],
  );
});

test('a place after a backslash in a string is that of the file', () => {
  assert.deepEqual(findingsOf('name="a"\ndisk=["/a\\"\\\\b,raw,vda"]\n'), [
    '2:20: error: libxl knows no vdev `vda`',
  ]);
});

test('a list nested without end and a file without end are refused', () => {
  assert.deepEqual(findingsOf(`name="a"\nirqs=${'['.repeat(100_000)}`), [
    '2:22: error: lists are nested more than 16 deep',
  ]);
  assert.match(findingsOf(' '.repeat((1 << 20) + 1))[0]!, /at most 1048576 are read/);
  assert.equal(surveyXlConfig('?\n'.repeat(1000), 'f').findings.length, 100);
});

test('D9: a message repeats no control characters of the file', () => {
  assert.equal(quoted('\u001b[2J\u0007\u202e'), '`\\x1b[2J\\x07\\x202e`');
  assert.equal(quoted('x'.repeat(100)), `\`${'x'.repeat(60)}…\``);
});

const key = fc.stringMatching(/^[a-z][._0-9a-z]{0,12}$/);
const number = fc.oneof(
  fc.nat().map(String),
  fc.nat().map((n) => `0x${n.toString(16)}`),
);
const atom = fc.oneof(
  number.map((text) => ({ kind: 'number', text })),
  fc
    .string({ unit: 'binary' })
    .filter((text) => !text.includes('\0'))
    .map((text) => ({ kind: 'string', text })),
  fc.string().map((text) => ({ kind: 'string', text })),
);
const { value } = fc.letrec<{ value: unknown; list: unknown }>((tie) => ({
  value: fc.oneof({ maxDepth: 4 }, atom, tie('list')),
  list: fc.array(tie('value'), { maxLength: 5 }).map((items) => ({ kind: 'list', items })),
}));
const settings = fc.array(
  fc.record({ key, operator: fc.constantFrom('=', '+='), value }, { noNullPrototype: true }),
  { maxLength: 10 },
);

/** The value without places, for comparing. */
function bare(value: XlValue): unknown {
  if (value.kind === 'list') return { kind: 'list', items: value.items.map(bare) };
  return { kind: value.kind, text: value.text };
}

test('32: what is printed is read back the same', () => {
  fc.assert(
    fc.property(settings, (written) => {
      const findings = new Findings('f');
      const read = parseSettings(printSettings(written as unknown as XlSetting[]), findings);
      assert.deepEqual(findings.list, []);
      assert.deepEqual(
        read.map(({ key, operator, value }) => ({ key, operator, value: bare(value) })),
        written,
      );
    }),
    { seed: 32, numRuns: 300 },
  );
});

const words = [
  'name',
  'disk',
  'virtio',
  '=',
  '+=',
  '[',
  ']',
  ',',
  ';',
  '\n',
  '"',
  "'",
  '\\',
  '#',
  '0',
  'type=virtio,',
  'target=',
  ' ',
];

test('32: any text ends in a result, every finding inside the text', () => {
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('utf8')),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc.array(fc.constantFrom(...words), { maxLength: 60 }).map((chosen) => chosen.join('')),
    fc.string({ maxLength: 40 }).map((spec) => `name="a"\ndisk=["${spec}"]\nvirtio=["${spec}"]\n`),
    fc.array(fc.constantFrom(...words), { maxLength: 20 }).map((chosen) => `disk=["${chosen.join('')}"]`),
  );
  fc.assert(
    fc.property(hostile, (text) => {
      const lines = text.split('\n');
      const { config, findings } = readXlConfig(text, 'f');
      assert.equal(
        config === undefined,
        findings.some(({ severity }) => severity === 'error'),
      );
      for (const { line, column } of findings) {
        assert.ok(line >= 1 && line <= lines.length, `line ${line}`);
        assert.ok(column >= 1 && column <= lines[line - 1]!.length + 1, `column ${column}`);
      }
    }),
    { seed: 32, numRuns: 2000 },
  );
});
