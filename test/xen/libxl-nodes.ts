// The nodes by which libxl announces a guest's virtio devices, as commands of the first domain: on x86 nobody else
// writes them. They are libxl's (device_disk_add, libxl_virtio.c), and not those of src/toolstack/virtio-nodes.ts, so
// that the backend reads what it did not write.

/** A device before it is announced: where libxl puts it, and what it says of it to the backend. */
export interface LibxlDevice {
  readonly kind: string;
  readonly devid: number;
  readonly nodes: Readonly<Record<string, string>>;
}

/** Of disk = [ "specification=virtio, vdev=xvda, …" ]; `place` is one of PLACES. */
export function libxlDisk(place: string, image: string): LibxlDevice {
  const [base, irq] = place.split(',irq=');
  const nodes = {
    ...{ bootable: '1', params: image, dev: 'xvda', type: 'standalone', mode: 'w', 'device-type': 'disk' },
    ...{ 'discard-enable': '1', specification: 'virtio', transport: 'mmio' },
    ...{ base: `${Number(base)}`, irq, grant_usage: '1' },
  };
  return { kind: 'virtio_disk', devid: 51712, nodes };
}

/** Of virtio = [ "type=virtio,device4, …" ]. */
export function libxlEntropy(place: string): LibxlDevice {
  const [base, irq] = place.split(',irq=');
  const nodes = { irq, base, type: 'virtio,device4', transport: 'mmio', grant_usage: '1' };
  return { kind: 'virtio', devid: 0, nodes };
}

/** Announces a device to both ends, and to libxl, which takes it away when its guest goes. `guest` may be a variable. */
export function announce(guest: string, { kind, devid, nodes }: LibxlDevice): string {
  const back = backendPath(guest, kind, devid);
  const front = `/local/domain/${guest}/device/${kind}/${devid}`;
  const own = `/libxl/${guest}/device/${kind}/${devid}`;
  const values = {
    ...prefixed(own, { frontend: front, backend: back }),
    ...prefixed(front, { backend: back, 'backend-id': '0', state: '1' }),
    ...prefixed(back, { frontend: front, 'frontend-id': guest, online: '1', state: '1', ...nodes }),
  };
  const words = Object.entries(values).flatMap(([path, value]) => [`"${path}"`, `"${value}"`]);
  return `xenstore-write ${words.join(' ')}\n`;
}

/** Waits until the backend serves the device or has refused it, and prints the state of its end, and its reason. */
export function awaitBackend(guest: string, { kind, devid }: LibxlDevice): string {
  const back = backendPath(guest, kind, devid);
  return `
    while [ "$(xenstore-read ${back}/state)" = 1 ]; do sleep 0.2; done
    echo "${kind}: state $(xenstore-read ${back}/state) $(xenstore-read ${back}/error 2>/dev/null || true)"\n`;
}

function backendPath(guest: string, kind: string, devid: number): string {
  return `/local/domain/0/backend/${kind}/${guest}/${devid}`;
}

function prefixed(path: string, values: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${path}/${name}`, value]));
}
