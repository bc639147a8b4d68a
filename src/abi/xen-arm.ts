// Where things lie in the address space of a guest on Arm, and its interrupts (public/arch-arm.h): fixed by
// Xen and used by libxl for the guest's device tree.

/** Window of the virtio-mmio devices, and the bytes that libxl gives each. */
export const GUEST_VIRTIO_MMIO_BASE = 0x0200_0000;
export const GUEST_VIRTIO_MMIO_SIZE = 0x0010_0000;
export const VIRTIO_MMIO_DEV_SIZE = 0x200;
/** Interrupts of the virtio-mmio devices, one each, both ends included: eleven. */
export const GUEST_VIRTIO_MMIO_SPI_FIRST = 33;
export const GUEST_VIRTIO_MMIO_SPI_LAST = 43;

export const GUEST_GICD_BASE = 0x0300_1000;
export const GUEST_GICD_SIZE = 0x1000;
export const GUEST_GICC_BASE = 0x0300_2000;
export const GUEST_GICC_SIZE = 0x2000;
export const GUEST_GICV3_GICD_SIZE = 0x1_0000;
export const GUEST_GICV3_GICR0_BASE = 0x0302_0000;
export const GUEST_GICV3_GICR0_SIZE = 0x100_0000;

export const GUEST_GNTTAB_BASE = 0x3800_0000;
export const GUEST_GNTTAB_SIZE = 0x0100_0000;

/** The two banks of RAM: 3 GiB, then 1016 GiB. */
export const GUEST_RAM_BANKS: readonly { readonly base: number; readonly size: number }[] = [
  { base: 0x4000_0000, size: 0xc000_0000 },
  { base: 0x2_0000_0000, size: 0xfe_0000_0000 },
];

/** Private interrupts of a processor: timers, and the one that event channels raise. */
export const GUEST_TIMER_VIRT_PPI = 27;
export const GUEST_TIMER_PHYS_S_PPI = 29;
export const GUEST_TIMER_PHYS_NS_PPI = 30;
export const GUEST_EVTCHN_PPI = 31;

/** Phandles that libxl takes for the interrupt controller and for the grant IOMMU. */
export const GUEST_PHANDLE_GIC = 65000;
export const GUEST_PHANDLE_IOMMU = 65001;
