// `grantio audit`: what backends could reach, from a trace of `grantio run`, as text, JSON, SARIF and a page.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { grantio, temporaryFolder } from '../support/grantio.ts';

/** A folder with `trace.json`, of a copy of a small disk in `modes`. */
async function traced(t: TestContext, ...mode: string[]): Promise<string> {
  const cwd = temporaryFolder(t);
  writeFileSync(join(cwd, 'disk.img'), Buffer.alloc(2 ** 19, 0x42));
  const words = ['run', '--disk', 'disk.img,ro', '--trace', 'trace.json', '--json', ...mode];
  const { status, stderr } = await grantio(t, words, { cwd });
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  return cwd;
}

interface AuditDocument {
  readonly version: number;
  readonly file: string;
  readonly trace: { readonly isComplete: boolean };
  readonly counts: { readonly error: number; readonly warning: number; readonly note: number };
  readonly runs: readonly {
    readonly mode: string;
    readonly total: { readonly foreignReadableBytes: number; readonly requests: number };
    readonly devices: readonly { readonly name: string; readonly foreignReadableBytes: number }[];
    readonly findings: readonly {
      readonly rule: string;
      readonly severity: string;
      readonly first: { readonly request?: { readonly id: number } };
    }[];
  }[];
}

test('XSA-403: of all modes in one trace, direct has errors with their request, the others have none', async (t) => {
  const cwd = await traced(t);
  const { status, stdout, stderr } = await grantio(t, ['audit', 'trace.json', '--json'], { cwd });
  assert.deepEqual({ status, stderr }, { status: 1, stderr: '' });
  const { version, file, trace, counts, runs } = JSON.parse(stdout) as AuditDocument;
  assert.deepEqual([version, file, trace.isComplete], [1, 'trace.json', true]);
  assert.deepEqual(
    runs.map(({ mode }) => mode),
    [...EXPOSURE_MODES],
  );
  for (const { devices } of runs)
    assert.deepEqual(
      devices.map(({ name }) => name),
      ['xvda'],
    );
  const errors = runs.map(({ findings }) => findings.filter(({ severity }) => severity === 'error'));
  assert.deepEqual(errors[0].map(({ rule }) => rule).sort(), ['foreign-readable', 'foreign-writable']);
  assert.equal(errors[0][0].first.request?.id, 0);
  assert.deepEqual(errors.slice(1).flat(), []);
  assert.equal(counts.error, 2);
  assert.ok(runs[0].devices[0].foreignReadableBytes > 0);
  for (const { total } of runs.slice(1)) assert.equal(total.foreignReadableBytes, 0);
});

test('--fail-on decides which findings make the exit status 1', async (t) => {
  const cwd = await traced(t, '--mode', 'bounce');
  const failOn = async (...words: string[]) =>
    (await grantio(t, ['audit', 'trace.json', ...words], { cwd })).status;
  // Tables of descriptors that were granted and not used are a note.
  assert.equal(await failOn(), 0);
  assert.equal(await failOn('--fail-on', 'warning'), 0);
  assert.equal(await failOn('--fail-on', 'note'), 1);
  assert.equal(await failOn('--fail-on', 'never'), 0);
});

test('the text has a column for each device, and says how to get the stacks', async (t) => {
  const cwd = await traced(t, '--mode', 'direct');
  const { status, stdout, stderr } = await grantio(t, ['audit', 'trace.json'], { cwd });
  assert.deepEqual({ status, stderr }, { status: 1, stderr: '' });
  assert.match(stdout, /^trace\.json: 1 run, [\d,]+ events, written by grantio \d/);
  assert.match(stdout, /│ xvda direct │/);
  assert.match(stdout, /^error: foreign-writable: xvda, direct: /m);
  assert.match(stdout, /^ {2}whose: +[\d.]+ KiB of the kernel's$/m);
  assert.match(stdout, /grantio run --dma-debug --trace FILE/);
  assert.match(stdout, /^\d errors, \d warnings, \d notes?\n$/m);
  assert.ok(!stdout.includes('\x1b'), 'colours are for terminals');
});

test('a run with --dma-debug records the stacks that made the mappings', async (t) => {
  const cwd = await traced(t, '--mode', 'direct', '--dma-debug');
  const { stdout } = await grantio(t, ['audit', 'trace.json'], { cwd });
  assert.match(stdout, /^ {2}stack: +\S.*\n( {10}\S.*\n)* {10}.*blk-queue/m);
});

test('--sarif prints a log of version 2.1.0, whose results point to their rules and to the trace', async (t) => {
  const cwd = await traced(t, '--mode', 'direct');
  const { stdout } = await grantio(t, ['audit', 'trace.json', '--sarif'], { cwd });
  const log = JSON.parse(stdout);
  assert.equal(log.version, '2.1.0');
  const [{ tool, results }] = log.runs;
  for (const rule of tool.driver.rules) {
    assert.ok(rule.id && rule.shortDescription.text && rule.fullDescription.text);
    assert.ok(['error', 'warning', 'note'].includes(rule.defaultConfiguration.level));
  }
  assert.ok(results.length >= 2);
  for (const { ruleId, ruleIndex, level, message, locations } of results) {
    assert.equal(tool.driver.rules[ruleIndex].id, ruleId);
    assert.ok(message.text && ['error', 'warning', 'note'].includes(level));
    assert.equal(locations[0].physicalLocation.artifactLocation.uri, 'trace.json');
    assert.equal(locations[0].logicalLocations[0].name, 'xvda, direct');
  }
});

test('--html writes one page beside what is printed', async (t) => {
  const cwd = await traced(t, '--mode', 'direct');
  const words = ['audit', 'trace.json', '--html', 'page.html', '--fail-on', 'never'];
  const { status, stdout } = await grantio(t, words, { cwd });
  assert.equal(status, 0);
  assert.match(stdout, /^trace\.json: 1 run/);
  const page = readFileSync(join(cwd, 'page.html'), 'utf8');
  assert.match(page, /^<!DOCTYPE html>\n/);
  assert.match(page, /<h2 id="run0">Run 1: direct<\/h2>/);
  assert.match(page, /<\/html>\n$/);
});

test('a page that cannot be written is a failure', async (t) => {
  const cwd = await traced(t, '--mode', 'bounce');
  const { status, stderr } = await grantio(t, ['audit', 'trace.json', '--html', 'none/page.html'], { cwd });
  assert.equal(status, 1);
  assert.match(stderr, /^grantio: page none\/page\.html: cannot be written: ENOENT/);
});

test('C8: a trace that was cut anywhere is audited up to there, and that is said', async (t) => {
  const cwd = await traced(t, '--mode', 'bounce');
  const whole = readFileSync(join(cwd, 'trace.json'));
  for (const part of [0.3, 0.7]) {
    writeFileSync(join(cwd, 'cut.json'), whole.subarray(0, Math.floor(whole.length * part)));
    const { status, stdout } = await grantio(t, ['audit', 'cut.json'], { cwd });
    assert.equal(status, 0, stdout);
    assert.match(stdout, /^warning: incomplete-trace: bounce: once$/m);
    assert.match(stdout, /the file was cut/);
  }
});

test('O1: what is not a trace ends with 2, and the line and the byte are named', async (t) => {
  const cwd = temporaryFolder(t);
  const header =
    '[{"name":"grantio","args":{"format":1,"version":"0","mode":"direct","devices":[],"startTime":"0"}}\n';
  writeFileSync(join(cwd, 'other.json'), '{"a": 1}\n');
  writeFileSync(join(cwd, 'empty.json'), '');
  writeFileSync(join(cwd, 'bad.json'), `${header},{"name":"busy","args":{"kind":"busy","domain":-1}}\n`);
  writeFileSync(join(cwd, 'long.json'), `${header}${'x'.repeat(3 * 2 ** 20)}`);
  const cases: [words: string[], message: RegExp][] = [
    [['none.json'], /^grantio: trace file none\.json: cannot be read: ENOENT/],
    [['.'], /^grantio: trace file \.: cannot be read: EISDIR/],
    [['other.json'], /^grantio: trace file other\.json, line 1, byte 0: expected "\[\{"/],
    [['empty.json'], /line 1, byte 0: the file ends before its first line does/],
    [['bad.json'], new RegExp(`line 2, byte ${header.length}: domain: expected an integer from 0`)],
    [['long.json'], /line 2, byte \d+: the line has more than 1048576 bytes/],
    [[], /^grantio: audit: name a trace/],
    [['bad.json', '--fail-on', 'often'], /--fail-on/],
    [['bad.json', '--json', '--sarif'], /cannot be used with/],
  ];
  for (const [words, message] of cases) {
    const { status, stdout, stderr } = await grantio(t, ['audit', ...words, '--html', 'page.html'], { cwd });
    assert.deepEqual({ status, stdout }, { status: 2, stdout: '' }, words.join(' '));
    assert.match(stderr, message);
  }
  assert.equal(existsSync(join(cwd, 'page.html')), false);
});

test('--help names every option, and gives examples; --list-rules prints the rules', async (t) => {
  const help = await grantio(t, ['audit', '--help']);
  assert.deepEqual({ status: help.status, stderr: help.stderr }, { status: 0, stderr: '' });
  for (const option of ['json', 'sarif', 'html', 'fail-on', 'list-rules'])
    assert.match(help.stdout, new RegExp(`^ {2}--${option}\\b`, 'm'));
  assert.match(help.stdout, /^Examples:$/m);
  const rules = await grantio(t, ['audit', '--list-rules']);
  assert.equal(rules.status, 0);
  assert.match(rules.stdout, /^late-write \(error\): /m);
  const page = readFileSync(new URL('../../../docs/audit.md', import.meta.url), 'utf8');
  for (const [, id, severity] of rules.stdout.matchAll(/^(\S+) \((\w+)\): /gm))
    assert.ok(page.includes(`| \`${id}\` | ${severity} |`), `docs/audit.md lacks ${id}`);
});
