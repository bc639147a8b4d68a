// Builds the device tree that libxl gives a guest on Arm (libxl_arm.c; addresses from public/arch-arm.h):
// processors, memory, interrupt controller, hypervisor node, and a node for each virtio-mmio device, with
// `iommus` where it is to use grants. What differs from boot to boot (seed, initrd) is left out.

import {
  GUEST_EVTCHN_PPI,
  GUEST_GICC_BASE,
  GUEST_GICC_SIZE,
  GUEST_GICD_BASE,
  GUEST_GICD_SIZE,
  GUEST_GICV3_GICD_SIZE,
  GUEST_GICV3_GICR0_BASE,
  GUEST_GICV3_GICR0_SIZE,
  GUEST_GNTTAB_BASE,
  GUEST_GNTTAB_SIZE,
  GUEST_PHANDLE_GIC,
  GUEST_PHANDLE_IOMMU,
  GUEST_RAM_BANKS,
  GUEST_TIMER_PHYS_NS_PPI,
  GUEST_TIMER_PHYS_S_PPI,
  GUEST_TIMER_VIRT_PPI,
  GUEST_VIRTIO_MMIO_BASE,
  GUEST_VIRTIO_MMIO_SPI_FIRST,
  GUEST_VIRTIO_MMIO_SPI_LAST,
  VIRTIO_MMIO_DEV_SIZE,
} from '../../abi/xen-arm.ts';
import type { DomainId } from '../../xen/ids.ts';
import { GRANT_DMA } from './backend.ts';
import { cells, type DeviceTree, emptyNode, strings, type TreeNode } from './tree.ts';

/** A virtio device behind virtio-mmio, as the guest is told of it. */
export interface VirtioMmioDevice {
  /** Guest-physical address of its registers. */
  readonly base: number;
  /** Number of its interrupt, counted from 0 as the interrupt controller does: 33 is SPI 1. */
  readonly irq: number;
  /** "virtio,device<id>"; undefined for a disk, whose node says nothing of its kind. */
  readonly type: string | undefined;
  /** The domain that gets grants; undefined if the device is to use plain guest-physical addresses. */
  readonly grantsTo: DomainId | undefined;
}

/** What the tree of a guest depends on. */
export interface GuestTreeOptions {
  readonly xenVersion: { readonly major: number; readonly minor: number };
  /** MiB. */
  readonly memory: number;
  readonly vcpus: number;
  readonly gic: 'v2' | 'v3';
  /** Bits of a guest-physical address. */
  readonly addressBits: number;
  readonly bootargs?: string;
  readonly devices: readonly VirtioMmioDevice[];
}

/**
 * Registers and interrupt of the guest's virtio-mmio device with `index`, disks counted first and then what
 * `virtio = [ … ]` lists; undefined past the last of the eleven interrupts.
 */
export function virtioMmioSlot(index: number): { readonly base: number; readonly irq: number } | undefined {
  const irq = GUEST_VIRTIO_MMIO_SPI_FIRST + index;
  if (irq > GUEST_VIRTIO_MMIO_SPI_LAST) return undefined;
  return { base: GUEST_VIRTIO_MMIO_BASE + index * VIRTIO_MMIO_DEV_SIZE, irq };
}

/** Builds the tree. */
export function guestTree(options: GuestTreeOptions): DeviceTree {
  const { major, minor } = options.xenVersion;
  const root = node('', {
    model: strings(`XENVM-${major}.${minor}`),
    compatible: strings(`xen,xenvm-${major}.${minor}`, 'xen,xenvm'),
    'interrupt-parent': cells(GUEST_PHANDLE_GIC),
    '#address-cells': cells(2),
    '#size-cells': cells(2),
  });
  const children = [
    node('chosen', options.bootargs === undefined ? {} : { bootargs: strings(options.bootargs) }),
    cpusNode(options.vcpus),
    psciNode(),
    ...memoryNodes(options.memory),
    gicNode(options.gic),
    timerNode(),
    hypervisorNode(options),
    ...options.devices.map(virtioNode),
  ];
  if (options.devices.some(({ grantsTo }) => grantsTo !== undefined)) children.push(iommuNode());
  for (const child of children) root.children.set(child.name, child);
  return { root, reservations: [], bootCpu: 0 };
}

function node(
  name: string,
  properties: Readonly<Record<string, Uint8Array>>,
  children: readonly TreeNode[] = [],
): TreeNode {
  const made = emptyNode(name);
  for (const [property, value] of Object.entries(properties)) made.properties.set(property, { value });
  for (const child of children) made.children.set(child.name, child);
  return made;
}

const EMPTY = new Uint8Array();

/** Address and size, two cells each. */
function region(base: number, size: number): number[] {
  return [base, size].flatMap((number) => [Math.floor(number / 0x1_0000_0000), number >>> 0]);
}

/** How an interrupt is raised (public/device_tree_defs.h). */
const EDGE_RISING = 1;
const LEVEL_LOW = 8;

/** An interrupt for all processors in the three cells of the GIC's binding: kind, number, flags. */
function interrupt(irq: number, trigger: number): number[] {
  const isPrivate = irq < 32;
  return [isPrivate ? 1 : 0, irq - (isPrivate ? 16 : 32), (0xf << 8) | trigger];
}

function interruptProperties(...interrupts: number[][]): Record<string, Uint8Array> {
  return { interrupts: cells(...interrupts.flat()), 'interrupt-parent': cells(GUEST_PHANDLE_GIC) };
}

function cpusNode(vcpus: number): TreeNode {
  const cpus = Array.from({ length: vcpus }, (_, index) => {
    const affinity = (index & 0xf) | ((index >> 4) << 8);
    return node(`cpu@${affinity.toString(16)}`, {
      device_type: strings('cpu'),
      compatible: strings('arm,armv8'),
      'enable-method': strings('psci'),
      reg: cells(affinity),
    });
  });
  return node('cpus', { '#address-cells': cells(1), '#size-cells': cells(0) }, cpus);
}

function psciNode(): TreeNode {
  return node('psci', {
    compatible: strings('arm,psci-1.0', 'arm,psci-0.2', 'arm,psci'),
    method: strings('hvc'),
    cpu_off: cells(1),
    cpu_on: cells(2),
  });
}

const MIB = 1 << 20;

/** The bytes of `memory` MiB that lie in each bank of RAM: the first is filled first. */
function bankSizes(memory: number): number[] {
  let left = memory * MIB;
  return GUEST_RAM_BANKS.map(({ size }) => {
    const here = Math.min(left, size);
    left -= here;
    return here;
  });
}

function memoryNodes(memory: number): TreeNode[] {
  const sizes = bankSizes(memory);
  return GUEST_RAM_BANKS.flatMap(({ base }, bank) => {
    const size = sizes[bank]!;
    if (size === 0) return [];
    return node(`memory@${base.toString(16)}`, {
      device_type: strings('memory'),
      reg: cells(...region(base, size)),
    });
  });
}

function gicNode(version: 'v2' | 'v3'): TreeNode {
  const second =
    version === 'v2'
      ? [...region(GUEST_GICD_BASE, GUEST_GICD_SIZE), ...region(GUEST_GICC_BASE, GUEST_GICC_SIZE)]
      : [
          ...region(GUEST_GICD_BASE, GUEST_GICV3_GICD_SIZE),
          ...region(GUEST_GICV3_GICR0_BASE, GUEST_GICV3_GICR0_SIZE),
        ];
  return node(`interrupt-controller@${GUEST_GICD_BASE.toString(16)}`, {
    compatible: version === 'v2' ? strings('arm,cortex-a15-gic', 'arm,cortex-a9-gic') : strings('arm,gic-v3'),
    '#interrupt-cells': cells(3),
    '#address-cells': cells(0),
    'interrupt-controller': EMPTY,
    reg: cells(...second),
    'linux,phandle': cells(GUEST_PHANDLE_GIC),
    phandle: cells(GUEST_PHANDLE_GIC),
  });
}

function timerNode(): TreeNode {
  const timers = [GUEST_TIMER_PHYS_S_PPI, GUEST_TIMER_PHYS_NS_PPI, GUEST_TIMER_VIRT_PPI];
  return node('timer', {
    compatible: strings('arm,armv8-timer'),
    ...interruptProperties(...timers.map((timer) => interrupt(timer, LEVEL_LOW))),
  });
}

/** Smallest hole in a bank of RAM that is worth telling the guest, and what its start is rounded up to. */
const EXTENDED_REGION_MIN = 64 * MIB;
const EXTENDED_REGION_ALIGNMENT = 2 * MIB;

/** Parts of the banks of RAM without memory, where the guest may map pages of other domains. */
function extendedRegions({ memory, addressBits }: GuestTreeOptions): number[] {
  const sizes = bankSizes(memory);
  return GUEST_RAM_BANKS.flatMap(({ base, size }, bank) => {
    const start = base + Math.ceil(sizes[bank]! / EXTENDED_REGION_ALIGNMENT) * EXTENDED_REGION_ALIGNMENT;
    const end = Math.min(base + size, 2 ** addressBits);
    return end - start >= EXTENDED_REGION_MIN ? region(start, end - start) : [];
  });
}

function hypervisorNode(options: GuestTreeOptions): TreeNode {
  const { major, minor } = options.xenVersion;
  return node('hypervisor', {
    compatible: strings(`xen,xen-${major}.${minor}`, 'xen,xen'),
    reg: cells(...region(GUEST_GNTTAB_BASE, GUEST_GNTTAB_SIZE), ...extendedRegions(options)),
    ...interruptProperties(interrupt(GUEST_EVTCHN_PPI, LEVEL_LOW)),
  });
}

/** Drivers of some kinds of devices look for a node of their own below that of the transport. */
function subNodes(type: string | undefined): TreeNode[] {
  if (type === 'virtio,device22') return [node('i2c', { compatible: strings(type) })];
  if (type !== 'virtio,device29') return [];
  const gpio = {
    compatible: strings(type),
    'gpio-controller': EMPTY,
    '#gpio-cells': cells(2),
    'interrupt-controller': EMPTY,
    '#interrupt-cells': cells(2),
  };
  return [node('gpio', gpio)];
}

function virtioNode({ base, irq, type, grantsTo }: VirtioMmioDevice): TreeNode {
  return node(
    `virtio@${base.toString(16)}`,
    {
      compatible: strings('virtio,mmio'),
      reg: cells(...region(base, VIRTIO_MMIO_DEV_SIZE)),
      ...interruptProperties(interrupt(irq, EDGE_RISING)),
      'dma-coherent': EMPTY,
      ...(grantsTo === undefined ? {} : { iommus: cells(GUEST_PHANDLE_IOMMU, grantsTo) }),
    },
    subNodes(type),
  );
}

function iommuNode(): TreeNode {
  return node('xen_iommu', {
    compatible: strings(GRANT_DMA),
    '#iommu-cells': cells(1),
    phandle: cells(GUEST_PHANDLE_IOMMU),
  });
}
