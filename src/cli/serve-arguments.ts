// `--print-qemu-args` and `--print-uml-args`: the words with which a virtual machine finds the devices. After serve.ts.

import { queuesOf, SERVED_KINDS } from './serve-kinds.ts';
import type { PlannedDevice, ServePlan } from './serve-plan.ts';
import { UsageError } from './usage.ts';

/** Words for qemu-system-*, of a guest with so much memory ("1G"). Throws UsageError. */
export function qemuArguments({ devices, restricted }: ServePlan, memory: string): string[] {
  if (!/^\d+[MG]$/.test(memory))
    throw new UsageError(`--print-qemu-args '${memory}': expected the guest's memory, such as 1G`);
  return [
    // Shared, because the backend maps it; sealed, so that it cannot shrink under the backend's feet.
    ...['-m', memory, '-object', `memory-backend-memfd,id=grantio-memory,size=${memory},share=on,seal=on`],
    // QEMU's other machine for a PC has no place for an IOMMU.
    ...['-machine', `${restricted ? 'q35,' : ''}memory-backend=grantio-memory`],
    ...['-smp', `${Math.max(...devices.map(({ spec }) => queuesOf(spec)))}`],
    // Interrupts are no matter of the backend's, and where they are remapped not every host can emulate them.
    ...(restricted ? ['-device', 'intel-iommu,device-iotlb=on,intremap=off'] : []),
    ...devices.flatMap((device) => deviceArguments(device, restricted)),
  ];
}

function deviceArguments(device: PlannedDevice, restricted: boolean): string[] {
  const { name, spec } = device;
  // A comma ends a value of QEMU's, two are one.
  const path = socketOf(device).replaceAll(',', ',,');
  const { qemuDevice, qemuReconnects } = SERVED_KINDS[spec.kind];
  // A transitional device, which QEMU makes otherwise, cannot offer VIRTIO_F_ACCESS_PLATFORM.
  const platform = restricted ? ',iommu_platform=on,ats=on,disable-legacy=on' : '';
  const reconnect = qemuReconnects ? ',reconnect=1' : '';
  return [
    ...['-chardev', `socket,id=grantio-${name},path=${path}${reconnect}`],
    ...['-device', `${qemuDevice(spec)},chardev=grantio-${name}${platform}`],
  ];
}

/** Words for User-Mode Linux. Throws UsageError. */
export function umlArguments({ devices }: ServePlan): string[] {
  return devices.map((device) => {
    const path = socketOf(device);
    if (/[:\s]/.test(path))
      throw new UsageError(`socket path ${path}: User-Mode Linux takes none with ":" or spaces`);
    return `virtio_uml.device=${path}:${SERVED_KINDS[device.spec.kind].virtioId}`;
  });
}

function socketOf({ name, place }: PlannedDevice): string {
  if ('path' in place) return place.path;
  throw new UsageError(`'${name}' has no --socket-path, which a virtual machine's arguments need`);
}
