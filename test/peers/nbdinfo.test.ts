// nbdinfo of libnbd: what grantio tells a client of its exports, and that a read-only one is read-only.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { sha256 } from './content.ts';
import { peerTest } from './peer.ts';

interface NbdinfoList {
  readonly exports: readonly { readonly 'export-name': string; readonly 'export-size': number }[];
}

peerTest('nbdinfo lists the disks by name, size and access', ['nbdinfo', 'nbdcopy'], async (peer) => {
  const first = peer.blank('first.img', 2 ** 20);
  const second = peer.blank('second.img', 3 * 2 ** 20);
  await peer.serve(
    [first, `${second},ro`],
    `nbdinfo --list --json "$uri" >list.json
     test "$(nbdinfo --size "$uri")" = ${2 ** 20}
     nbdinfo --can write "$uri"
     nbdinfo --can flush "$uri"
     nbdinfo --can multi-conn "$uri"
     second="nbd+unix:///xvdb?socket=$unixsocket"
     test "$(nbdinfo --size "$second")" = ${3 * 2 ** 20}
     nbdinfo --is read-only "$second"
     if nbdcopy first.img "$second"; then exit 1; fi
     nbdcopy "$second" second.out`,
  );
  const { exports } = JSON.parse(readFileSync(peer.path('list.json'), 'utf8')) as NbdinfoList;
  assert.deepEqual(
    exports.map((each) => [each['export-name'], each['export-size']]),
    [
      ['xvda', 2 ** 20],
      ['xvdb', 3 * 2 ** 20],
    ],
  );
  assert.equal(sha256(peer.path('second.out')), sha256(second));
});
