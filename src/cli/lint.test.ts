import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LintCommandOptions, lintCommand } from './lint.ts';

const FILES: Readonly<Record<string, string>> = {
  'good.cfg': 'name = "g"\n',
  'warned.cfg': 'name = "g"\nmemory = 1\nmemory = 2\n',
  'bad.cfg': 'name = "g"\nmemroy = 1\n',
  'plain.dts':
    '/dts-v1/; / { virtio@0 { compatible = "virtio,mmio"; interrupts = <0 1 1>; dma-coherent; }; };',
};

/** The exit status and what was printed. */
function run(paths: string[], options: LintCommandOptions = {}) {
  const printed = { out: '', err: '' };
  const status = lintCommand(paths, options, {
    readFile(path) {
      const text = FILES[path];
      if (text === undefined) throw new Error('ENOENT: no such file');
      return new TextEncoder().encode(text);
    },
    out(text) {
      printed.out += text;
    },
    err(text) {
      printed.err += text;
    },
  });
  return { status, ...printed };
}

test('the exit status is 1 if there is an error among the findings, 0 if not', () => {
  assert.equal(run(['good.cfg']).status, 0);
  assert.equal(run(['warned.cfg']).status, 0);
  assert.equal(run(['good.cfg', 'bad.cfg']).status, 1);
  assert.match(run(['bad.cfg']).out, /^bad\.cfg:2:1: error: xl knows no setting `memroy`/);
});

test('O1: a call that cannot be carried out ends with 2 and prints no findings', () => {
  assert.deepEqual(run([]), {
    status: 2,
    out: '',
    err: 'grantio lint: name at least one guest configuration, device tree (.dts, .dtb) or dump of xenstore-ls -f\n',
  });
  assert.deepEqual(run(['bad.cfg', 'none']), {
    status: 2,
    out: '',
    err: 'grantio lint: cannot read none: ENOENT: no such file\n',
  });
  assert.deepEqual(run(['bad.cfg'], { format: 'xml' }), {
    status: 2,
    out: '',
    err: 'grantio lint: no format "xml"; expected text, json, sarif\n',
  });
});

test('a file that is named twice is linted once', () => {
  assert.match(run(['warned.cfg', 'warned.cfg']).out, /\n1 file: 0 errors, 1 warning, 0 notes\n$/);
});

test('findings come as JSON and SARIF', () => {
  assert.equal(JSON.parse(run(['bad.cfg'], { format: 'json' }).out).counts.error, 1);
  assert.equal(JSON.parse(run(['bad.cfg'], { format: 'sarif' }).out).runs[0].results.length, 1);
});

test('grants can be forced', () => {
  assert.equal(run(['plain.dts']).status, 0);
  assert.equal(run(['plain.dts'], { forceGrants: true }).status, 1);
});

test('the rules can be listed', () => {
  const { status, out } = run([], { listRules: true });
  assert.equal(status, 0);
  assert.match(out, /^iommu-map-length \(error\): /m);
});
