// The page's script: shows what the part under the pointer says, and lets arrow keys go through the parts.
// Kept small: everything it shows is in the page, as text of an attribute, and in the tables.

/** Runs at the end of the page. It only ever sets textContent, classes and the state of findings. */
export const SCRIPT = `
'use strict';
for (const view of document.querySelectorAll('[data-view]')) {
  const say = document.getElementById(view.getAttribute('data-view'));
  const parts = Array.from(view.querySelectorAll('[data-say]'));
  let current = -1;
  const show = (index) => {
    if (index < 0 || index >= parts.length) return;
    if (current >= 0) parts[current].classList.remove('current');
    current = index;
    parts[index].classList.add('current');
    say.textContent = parts[index].getAttribute('data-say');
  };
  view.addEventListener('pointerover', (event) => show(parts.indexOf(event.target)));
  view.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowRight' || event.key === 'ArrowDown') show(current + 1);
    else if (event.key === 'ArrowLeft' || event.key === 'ArrowUp') show(current - 1);
    else return;
    event.preventDefault();
  });
}
const open = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target !== null && target.tagName === 'DETAILS') target.setAttribute('open', '');
};
window.addEventListener('hashchange', open);
open();
`;

/** Lets the page's policy run this script and no other; page.test.ts computes it. */
export const SCRIPT_HASH = 'sha256-1fyMpsQwWcSU54lxH5H2cE2NXoVXR+YzUZzG2dfABwg=';
