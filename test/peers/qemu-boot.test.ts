// SeaBIOS boots from a vhost-user disk: a third driver for virtio-blk, which polls and has one small request in
// flight. The boot sector is ours: by the BIOS it reads a text far behind it, writes it elsewhere, and prints it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type DiskBackend, diskWords, grantioServe, qemuArguments, storageDaemon } from './rig/backend.ts';
import { QEMU } from './rig/needs.ts';
import { startQemu } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const SECTOR = 512;
const SIZE = 8 * 2 ** 20;

/** Where the BIOS loads a boot sector. */
const LOADED = 0x7c00;
/** Sectors that the boot sector asks for. */
const TEXT_SECTORS = 8;
/** Where the text is on the disk, and where the boot sector writes it, in sectors. */
const TEXT_SECTOR = 9001;
const COPY_SECTOR = 12_003;

/** A listing: address, bytes, and what they mean. dl is the disk that was booted from. */
const BOOT = `
7c00: 31 c0        xor ax, ax
7c02: 8e d8        mov ds, ax
7c04: 8e d0        mov ss, ax
7c06: bc 00 7c     mov sp, 0x7c00
7c09: fc           cld
7c0a: be 50 7c     mov si, 0x7c50         the packet for reading
7c0d: b4 42        mov ah, 0x42
7c0f: cd 13        int 0x13
7c11: 72 28        jc 0x7c3b
7c13: be 60 7c     mov si, 0x7c60         the packet for writing
7c16: b8 00 43     mov ax, 0x4300
7c19: cd 13        int 0x13
7c1b: 72 1e        jc 0x7c3b
7c1d: be 00 80     mov si, 0x8000         the text, up to its 0
7c20: ac           lodsb
7c21: 84 c0        test al, al
7c23: 74 12        jz 0x7c37
7c25: 88 c4        mov ah, al
7c27: ba fd 03     mov dx, 0x3fd          until the serial port can take a byte
7c2a: ec           in al, dx
7c2b: a8 20        test al, 0x20
7c2d: 74 fb        jz 0x7c2a
7c2f: ba f8 03     mov dx, 0x3f8
7c32: 88 e0        mov al, ah
7c34: ee           out dx, al
7c35: eb e9        jmp 0x7c20
7c37: b0 10        mov al, 0x10           well done
7c39: eb 02        jmp 0x7c3d
7c3b: b0 11        mov al, 0x11           a request failed
7c3d: e6 f4        out 0xf4, al           ends QEMU
7c3f: f4           hlt
7c40: eb fd        jmp 0x7c3f
7c50: 10 00 08 00 00 80 00 00   a packet (Enhanced Disk Drive Services): 16 bytes, 8 sectors, to 0:0x8000
7c60: 10 00 08 00 00 80 00 00
7dfe: 55 aa        a boot sector`;

/** QEMU's status for the 0x10 of the boot sector (isa-debug-exit doubles it and adds one). */
const WELL_DONE = 0x21;

/** More than one sector of text, no two lines alike. */
const LINES = Array.from({ length: 150 }, (_, i) => `sector ${TEXT_SECTOR}, line ${i}`);

function bootSector(): Buffer {
  const sector = Buffer.alloc(SECTOR);
  for (const [, address, bytes] of BOOT.matchAll(/^(\w{4}): ((?:[0-9a-f]{2} )+)/gm))
    sector.write(bytes!.replaceAll(' ', ''), Number.parseInt(address!, 16) - LOADED, 'hex');
  sector.writeBigUInt64LE(BigInt(TEXT_SECTOR), 0x58);
  sector.writeBigUInt64LE(BigInt(COPY_SECTOR), 0x68);
  return sector;
}

function bootDisk(): Buffer {
  const disk = Buffer.alloc(SIZE);
  bootSector().copy(disk);
  const text = disk.subarray(TEXT_SECTOR * SECTOR, (TEXT_SECTOR + TEXT_SECTORS) * SECTOR);
  text.write(`${LINES.join('\r\n')}\r\n\0`);
  return disk;
}

function bootTest(title: string, { name, needs, serve }: DiskBackend): void {
  rigTest(`${title} ${name}`, [QEMU, ...needs], async (rig) => {
    const wanted = bootDisk();
    const disk = rig.file('disk.img', wanted);
    const socket = rig.path('socket');
    const backend = await serve(rig, disk, socket, 1);
    const words = await qemuArguments(rig, socket, ...diskWords(disk, 1));
    const guest = startQemu(rig, [...words, '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']);
    for (const line of LINES) await guest.says(new RegExp(`${line}$`));
    assert.deepEqual(await guest.ended(), { status: WELL_DONE, signal: null });
    await backend.end();
    wanted.copyWithin(COPY_SECTOR * SECTOR, TEXT_SECTOR * SECTOR, (TEXT_SECTOR + TEXT_SECTORS) * SECTOR);
    assert.ok(readFileSync(disk).equals(wanted), 'the disk with the copy of the text');
  });
}

bootTest('SeaBIOS in QEMU: boots from a disk of', grantioServe);
bootTest('SeaBIOS in QEMU: the rig itself, boots from a disk of', storageDaemon);
