import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GivenOptions } from './serve-options.ts';
import { UsageError } from './usage.ts';
import { type GivenPlace, planXenBackend } from './xen-backend-plan.ts';

/** "mmio=0x1000,irq=5" as the parser hands it over; a switch has no "=". */
function places(...words: readonly string[]): GivenPlace[] {
  return words.map((word) => {
    const at = word.indexOf('=');
    return at < 0 ? { name: word, value: true } : { name: word.slice(0, at), value: word.slice(at + 1) };
  });
}

const ROOT = ['mmio=0xd0000000,irq=5', 'disk=root.img'];

test('devices by hand: a place, and what is there, in the order of the call', () => {
  const words = [...ROOT, 'mmio=3489661440,irq=10', 'rng', 'mmio=0xd0000400,irq=11', 'console=pty:/run/vm'];
  const { work } = planXenBackend({ domain: '3', queues: '2', access: 'copy' }, places(...words));
  assert.ok('attach' in work);
  assert.deepEqual(
    work.attach.map(({ name, guest, base, irq, access }) => [name, guest, base, irq, access]),
    [
      ['3/blk@0xd0000000', 3, 0xd000_0000, 5, 'copy'],
      ['3/rng@0xd0000200', 3, 0xd000_0200, 10, 'copy'],
      ['3/console@0xd0000400', 3, 0xd000_0400, 11, 'copy'],
    ],
  );
  assert.deepEqual(work.attach[0].spec, {
    ...{ kind: 'blk', path: 'root.img', readOnly: false, direct: false, engine: 'auto' },
    ...{ queues: 2, queueSize: 256, id: 'grantio-3-0' },
  });
});

test('G5: grants are required by hand, too, unless the caller says otherwise', () => {
  for (const [given, access] of [
    [{}, 'map'],
    [{ grants: 'on' }, 'map'],
    [{ grants: 'off' }, 'plain'],
    [{ grants: 'off', access: 'copy' }, 'plain'],
  ] as const) {
    const { work } = planXenBackend({ domain: '1', ...given }, places(...ROOT));
    assert.ok('attach' in work);
    assert.equal(work.attach[0].access, access);
  }
});

test('a read-only disk', () => {
  const { work } = planXenBackend({ domain: '1' }, places('mmio=0x1000,irq=5', 'disk=a,ro'));
  assert.ok('attach' in work && work.attach[0].spec.kind === 'blk');
  assert.deepEqual([work.attach[0].spec.path, work.attach[0].spec.readOnly], ['a', true]);
});

test('without --domain it watches, and is told where consoles lead', () => {
  const { work } = planXenBackend({ direct: true }, places('console=pty:/run/{domain}-{device}'));
  assert.deepEqual(work, {
    watch: {
      disk: { direct: true, engine: 'auto', queues: 1, queueSize: 256 },
      console: { kind: 'pty', path: '/run/{domain}-{device}' },
      access: 'map',
    },
  });
});

test('metrics are served where the caller says', () => {
  const { operation } = planXenBackend({ metrics: '/run/xen.metrics' }, []);
  assert.deepEqual(operation.metrics, { path: '/run/xen.metrics' });
});

test('devices are kept for a successor, unless the caller does not want that', () => {
  for (const [given, folder] of [
    [{}, '/run/grantio/xen'],
    [{ state: '/run/mine' }, '/run/mine'],
    [{ state: 'none' }, undefined],
  ] as const)
    assert.equal(planXenBackend(given, []).folder, folder);
});

const BAD: readonly (readonly [given: GivenOptions, words: readonly string[], says: RegExp])[] = [
  [{ domain: '3' }, [], /^--domain needs devices/],
  [{ domain: '3' }, ['disk=x'], /^--disk comes after the --mmio/],
  [{ domain: '3' }, ['mmio=0x1000,irq=5'], /^--mmio 0x1000,irq=5: no device is there/],
  [{ domain: '3' }, ['mmio=0x1000,irq=5', 'mmio=0x2000,irq=6', 'rng'], /^--mmio 0x1000,irq=5: no device/],
  [{ domain: '3' }, [...ROOT, 'rng'], /^--rng comes after the --mmio/],
  [{ domain: '3' }, ['mmio=0x1000', 'rng'], /^--mmio '0x1000': expected BASE,irq=N/],
  [{ domain: '3' }, ['mmio=0x1001,irq=5', 'rng'], /expected a multiple of 4 below 4 GiB/],
  [{ domain: '3' }, ['mmio=0xfffffffc,irq=5', 'rng'], /expected a multiple of 4 below 4 GiB/],
  [{ domain: '3' }, ['mmio=0x1000,irq=1020', 'rng'], /interrupt line up to 1019/],
  [{ domain: '3' }, [...ROOT, 'mmio=0xd0000100,irq=6', 'rng'], /0xd0000000 and 0xd0000100 overlap/],
  [{ domain: '3' }, [...ROOT, 'mmio=0xd0001000,irq=5', 'rng'], /two devices have the interrupt line 5/],
  [{ domain: '3' }, ['mmio=0x1000,irq=5', 'disk=,ro'], /^--disk ',ro': expected PATH/],
  [{ domain: '3' }, ['mmio=0x1000,irq=5', 'console=tty'], /^--console 'tty': expected socket:PATH/],
  [{ domain: '32752' }, ROOT, /^--domain '32752': expected a whole number from 0 to 32751/],
  [{ domain: '3', grants: 'maybe' }, ROOT, /^--grants 'maybe': expected one of on, off/],
  [{ domain: '3', access: 'plain' }, ROOT, /^--access 'plain': expected one of map, copy/],
  [{ domain: '3', 'queue-size': '100' }, ROOT, /^--queue-size '100': expected a power of two/],
  [{ grants: 'off' }, [], /^--grants is for --domain ID; .*grant_usage/],
  [{}, ROOT, /^--mmio is for --domain ID/],
  [{}, ['rng'], /^--rng is for --domain ID/],
  [{}, ['console=pty:/run/x'], /^--console 'pty:\/run\/x': expected \{domain\}/],
  [{}, ['console=stdio'], /expected \{domain\}/],
  [{}, ['console=pty:/{domain}', 'console=pty:/{domain}'], /^--console is given twice/],
];

for (const [given, words, says] of BAD)
  test(`O1: xen-backend ${JSON.stringify(given)} ${words.join(' ')} is refused in a sentence`, () => {
    assert.throws(
      () => planXenBackend(given, places(...words)),
      (error) => error instanceof UsageError && says.test(error.message),
    );
  });
