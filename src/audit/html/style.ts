// The page's style, for light and dark. The colours are Okabe and Ito's, which people who see few colours can
// tell apart.

/** The one style sheet. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --back: #fff; --text: #1b1b1b; --soft: #5a5a5a; --line: #c9c9c9; --never: #eceef1;
  --good: #00674d; --bad: #b02f00; --warn: #8a5a00; --note: #005a8f;
  --needed: #0072b2; --private: #56b4e9; --unnamed: #7d7d7d; --readable: #e69f00; --writable: #d55e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #16181b; --text: #ececec; --soft: #a9adb3; --line: #43474d; --never: #26292e;
    --good: #4fd1a5; --bad: #ff8f66; --warn: #f0c060; --note: #7cc4f0;
    --needed: #3d9be0; --private: #8fd0f5; --unnamed: #9a9a9a; --readable: #f0b429; --writable: #ff7a33;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.5rem 4rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); } h3 { margin-bottom: .4rem; }
.verdict { font-size: 1.4rem; font-weight: 600; margin: .3rem 0; }
.good { color: var(--good); } .bad, .verdict.error { color: var(--bad); } .verdict.warning { color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .15rem .7rem; text-align: right; vertical-align: top; }
th[scope=row] { text-align: left; font-weight: normal; }
td:nth-child(3) { text-align: right; }
.finding { margin: .5rem 0; padding: .3rem .8rem; border-left: .35rem solid var(--note); background: var(--never); }
.finding.error { border-color: var(--bad); } .finding.warning { border-color: var(--warn); }
.finding.error strong { color: var(--bad); } .finding.warning strong { color: var(--warn); }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; font-size: .85rem; }
figure { margin: .5rem 0; } figcaption, .legend { color: var(--soft); font-size: .9rem; }
ul.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.say { min-height: 3em; margin: .3rem 0; padding: .3rem .6rem; background: var(--never); font-size: .9rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 11px; }
svg:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--note); outline-offset: 2px; }
svg .current { stroke: var(--text); stroke-width: 2; }
.key { display: inline-block; width: .9em; height: .9em; vertical-align: -.1em; }
.axis { fill: none; stroke: var(--line); }
.step { fill: transparent; }
path.exposed { fill: var(--readable); } path.needed { fill: var(--needed); }
.key.exposed { background: var(--readable); }
.mark { fill: var(--note); } .mark.error { fill: var(--bad); } .mark.warning { fill: var(--warn); }
rect.never { fill: var(--never); } rect.unnamed { fill: var(--unnamed); } rect.private { fill: var(--private); }
rect.needed { fill: var(--needed); }
rect.foreign-readable { fill: var(--readable); } rect.foreign-writable { fill: var(--writable); }
.key.never { background: var(--never); } .key.unnamed { background: var(--unnamed); }
.key.private { background: var(--private); } .key.needed { background: var(--needed); }
.key.foreign-readable { background: var(--readable); } .key.foreign-writable { background: var(--writable); }
`;

/** Lets the page's policy use this style and no other; page.test.ts computes it. */
export const STYLE_HASH = 'sha256-iqsqXe71Qut2s2O6+VQZJ29l8J45QSHBxwOmrfZOrpc=';
