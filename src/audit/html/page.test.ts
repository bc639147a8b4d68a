import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import vm from 'node:vm';
import { auditOf, audited, BACKEND, DISK, directRead, GUEST, traceText } from '../auditing.test.helper.ts';
import { DMA_FROM_DEVICE } from '../../trace.ts';
import { html } from './markup.ts';
import { auditPage } from './page.ts';
import { SCRIPT, SCRIPT_HASH } from './script.ts';
import { STYLE, STYLE_HASH } from './style.ts';

const hashOf = (text: string) => `sha256-${createHash('sha256').update(text).digest('base64')}`;

const page = auditPage(
  audited(({ clock, trace, writer }) => {
    writer.beginRun('direct');
    for (let id = 0; id < 20; id++) {
      directRead(trace, id, 4);
      clock.now += 5000;
    }
    writer.addStacks(new Map([[4, 'at read (blk.ts:1)']]));
    writer.beginRun('bounce');
    trace.privatePages(GUEST, DISK, 0x8000, 8);
    trace.grant(GUEST, BACKEND, 8, 0x8000, 8, false);
    trace.need(GUEST, DISK, 8, 0, 32_768, DMA_FROM_DEVICE);
  }),
  't.json',
);

/** What of HTML ends without an end tag. */
const VOID = new Set(['meta', 'br', '!doctype']);

/** The elements of a page in order; fails where one is not closed, or closed and not open. */
function elementsOf(text: string): { name: string; attributes: Map<string, string> }[] {
  const body = text.replace(/<(script|style)>[\s\S]*?<\/\1>/g, '<$1></$1>');
  const open: string[] = [];
  const elements: { name: string; attributes: Map<string, string> }[] = [];
  for (const [tag, end, name, rest, self] of body.matchAll(/<(\/?)([!a-z0-9]+)((?:\s[^<>]*?)?)(\/?)>/gi)) {
    const lower = name.toLowerCase();
    if (end === '/') {
      assert.equal(open.pop(), lower, `${tag} closes another element`);
      continue;
    }
    const pairs = [...rest.matchAll(/([a-zA-Z-]+)="([^"]*)"/g)].map(([, key, value]): [string, string] => [
      key,
      value,
    ]);
    if (lower !== '!doctype')
      assert.equal(
        rest.replace(/\s+[a-zA-Z-]+="[^"]*"/g, '').trim(),
        '',
        `${tag}: an attribute is not quoted`,
      );
    elements.push({ name: lower, attributes: new Map(pairs) });
    if (self === '' && !VOID.has(lower)) open.push(lower);
  }
  assert.deepEqual(open, []);
  assert.equal(body.replace(/<[^<>]*>/g, '').includes('<'), false, 'a < that begins no tag');
  return elements;
}

test('every element is closed, every id is there once, and links lead to an id', () => {
  const elements = elementsOf(page);
  const ids = elements.flatMap(({ attributes }) => attributes.get('id') ?? []);
  assert.equal(new Set(ids).size, ids.length);
  for (const { attributes } of elements) {
    const links = [
      attributes.get('href')?.slice(1),
      attributes.get('aria-labelledby'),
      attributes.get('data-view'),
    ];
    for (const link of links) if (link !== undefined) assert.ok(ids.includes(link), link);
  }
});

test('the page holds both pictures of each run, their tables, the findings and their stacks', () => {
  const elements = elementsOf(page);
  assert.equal(elements.filter(({ name }) => name === 'svg').length, 4);
  assert.equal(elements.filter(({ attributes }) => attributes.get('class')?.startsWith('finding')).length, 3);
  assert.match(page, /<pre>at read \(blk\.ts:1\)<\/pre>/);
  assert.match(
    page,
    /data-say="frame 0x65: bytes beside the buffers could be read and overwritten; owner xvda; /,
  );
  assert.match(page, /data-say="frame 0x8000: private to its device; owner xvda; granted once/);
});

test('O3: nothing is fetched, and only the page’s own script and style are let in', () => {
  const policy = `default-src 'none'; style-src '${STYLE_HASH}'; script-src '${SCRIPT_HASH}'`;
  assert.equal(SCRIPT_HASH, hashOf(SCRIPT));
  assert.equal(STYLE_HASH, hashOf(STYLE));
  assert.ok(page.includes(html`${policy}`.text));
  for (const { name, attributes } of elementsOf(page)) {
    assert.ok(!attributes.has('src') && !attributes.has('style'), name);
    assert.ok(![...attributes.keys()].some((key) => key.startsWith('on')), name);
    assert.ok(attributes.get('href')?.startsWith('#') ?? true);
  }
  assert.doesNotMatch(page, /https?:|@import|url\(/);
});

test('O3: what a trace says is text, whatever it looks like', () => {
  const hostile = '</style><script>alert(1)</script><img src=x onerror="alert(1)">&\u202e\u0007';
  const text = traceText(({ trace, writer }) => {
    writer.beginRun(hostile);
    directRead(trace, 1, 4);
    writer.addStacks(new Map([[4, hostile]]));
  }, hostile);
  const elements = elementsOf(auditPage(auditOf(text), hostile));
  assert.equal(elements.filter(({ name }) => name === 'script').length, 1);
  assert.equal(elements.filter(({ name }) => name === 'img').length, 0);
});

test('a large trace makes a page of bounded size', () => {
  const report = audited(({ clock, trace }) => {
    trace.reach(BACKEND, GUEST, 0, 262_144);
    for (let frame = 0; frame < 70_000; frame++) {
      clock.now += 1_000_000;
      trace.grant(GUEST, BACKEND, 8, frame * 3, 1, false);
      trace.need(GUEST, DISK, 8, 0, 16, DMA_FROM_DEVICE);
      trace.revoke(GUEST, 8, 1);
      trace.needEnd(GUEST, DISK, 8, 0, 16);
    }
  });
  assert.equal(report.runs[0].frames.length, 65_536);
  assert.equal(report.runs[0].framesLeft, 70_000 - 65_536);
  const text = auditPage(report, 't.json');
  assert.ok(text.length < 1_500_000, `${text.length} characters`);
  elementsOf(text);
});

/** As much of a document as the script uses. */
class StubElement {
  readonly classes = new Set<string>();
  readonly listeners = new Map<string, (event: object) => void>();
  readonly attributes: Map<string, string>;
  readonly parts: StubElement[];
  textContent = '';
  tagName = 'DETAILS';
  readonly classList = {
    add: (name: string) => void this.classes.add(name),
    remove: (name: string) => void this.classes.delete(name),
  };

  constructor(attributes: Record<string, string>, parts: StubElement[] = []) {
    this.attributes = new Map(Object.entries(attributes));
    this.parts = parts;
  }

  getAttribute(name: string): string | null {
    return this.attributes.get(name) ?? null;
  }

  setAttribute(name: string, value: string): void {
    this.attributes.set(name, value);
  }

  querySelectorAll(): StubElement[] {
    return this.parts;
  }

  addEventListener(name: string, listener: (event: object) => void): void {
    this.listeners.set(name, listener);
  }
}

test('the script says what is under the pointer, goes on by arrow keys, and opens the finding of a link', () => {
  const parts = ['one', 'two'].map((say) => new StubElement({ 'data-say': say }));
  const view = new StubElement({ 'data-view': 'say' }, parts);
  const say = new StubElement({});
  const finding = new StubElement({});
  const page = new StubElement({});
  const elements: Record<string, StubElement> = { say, f0: finding };
  const location = { hash: '' };
  vm.runInNewContext(SCRIPT, {
    document: { querySelectorAll: () => [view], getElementById: (id: string) => elements[id] ?? null },
    window: page,
    location,
  });
  const key = (name: string) =>
    view.listeners.get('keydown')!({ key: name, preventDefault: () => undefined });
  view.listeners.get('pointerover')!({ target: parts[1] });
  assert.deepEqual([say.textContent, parts[1].classes.has('current')], ['two', true]);
  key('ArrowLeft');
  assert.deepEqual([say.textContent, parts[1].classes.has('current')], ['one', false]);
  key('ArrowLeft');
  key('Tab');
  assert.equal(say.textContent, 'one');
  key('ArrowRight');
  assert.equal(say.textContent, 'two');
  location.hash = '#f0';
  page.listeners.get('hashchange')!({});
  assert.equal(finding.getAttribute('open'), '');
});
