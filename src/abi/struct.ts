// Declares a binary layout once, in the specification's field order, and makes everything from it:
// an accessor class with a movable cursor, field offsets for layout tests, hex dumps, random instances.
//
// Little endian, as virtio 1.x (§1.4) and Xen's ABI on x86 and Arm are, unless declared 'big' (NBD). An
// accessor costs 4-9 ns for a 16-byte record: getters are made once, on a prototype, over one DataView.
// DataView may tear on shared memory: ring indices, event fields and grant flags that a peer changes
// while we look go through Atomics on typed arrays instead (virtqueue/ring-memory.ts, hosts/model/).

/** Width and meaning of a field. `u64` is a number, `bits64` a bigint, `addr64` two u32 halves. */
export type FieldKind =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'i16'
  | 'i32'
  /** A size, offset or count: a number. Written up to 2^53 - 1; read above that, it is rounded. */
  | 'u64'
  /** Feature bits or flags: a bigint. */
  | 'bits64'
  /** An address: two numbers, `<name>Low` and `<name>High`. */
  | 'addr64'
  /** Raw bytes: a Uint8Array over the record, not a copy. */
  | { readonly bytes: number };

type Fields = Readonly<Record<string, FieldKind>>;

/** Which end of an integer comes first. */
type ByteOrder = 'little' | 'big';

/** Where one field lies in its record. */
export interface FieldLayout {
  readonly name: string;
  readonly kind: FieldKind;
  /** Bytes from the start of the record. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

type NumberNames<F extends Fields> = {
  [K in keyof F]: F[K] extends 'u8' | 'u16' | 'u32' | 'i16' | 'i32' | 'u64' ? K : never;
}[keyof F];
type BigintNames<F extends Fields> = { [K in keyof F]: F[K] extends 'bits64' ? K : never }[keyof F];
type AddressNames<F extends Fields> = { [K in keyof F]: F[K] extends 'addr64' ? K & string : never }[keyof F];
type BytesNames<F extends Fields> = {
  [K in keyof F]: F[K] extends { readonly bytes: number } ? K : never;
}[keyof F];

/** The fields of a record, as properties that read and write the bytes under the cursor. */
export type RecordOf<F extends Fields> = { -readonly [K in NumberNames<F>]: number } & {
  -readonly [K in BigintNames<F>]: bigint;
} & { -readonly [K in AddressNames<F> as `${K}Low` | `${K}High`]: number } & {
  readonly [K in BytesNames<F>]: Uint8Array;
};

/** Bytes that a cursor can stand on; shared memory too. */
export interface ByteView {
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** A cursor over records of one struct. */
export interface Cursor {
  /** Puts the cursor on the record that starts `offset` bytes into the view; returns the cursor. */
  at(offset: number): this;
}

/** A declared layout. */
export interface Struct<F extends Fields> {
  readonly name: string;
  /** Bytes of one record, with the declared padding. */
  readonly size: number;
  readonly fields: readonly FieldLayout[];
  /** Offset of a field in bytes. */
  offsetOf(field: keyof F & string): number;
  /** A cursor at offset 0 of `view`. The bounds are DataView's: outside `view` it throws RangeError. */
  over(view: ByteView): RecordOf<F> & Cursor;
  /** A cursor over fresh zeroed memory of one record, for building a record before it is copied out. */
  make(values?: Partial<RecordOf<F>>): RecordOf<F> & Cursor & { readonly bytes: Uint8Array };
  /** One line a field: offset, hex bytes, name and value. `offset` is where the record starts in `view`. */
  dump(view: ByteView, offset?: number): string;
  /** Fills the record at the cursor's place in `view` from a source of random bytes (0-255 each). */
  randomise(view: ByteView, offset: number, nextByte: () => number): void;
}

function sizeOf(kind: FieldKind): number {
  if (typeof kind === 'object') return kind.bytes;
  switch (kind) {
    case 'u8':
      return 1;
    case 'u16':
    case 'i16':
      return 2;
    case 'u32':
    case 'i32':
      return 4;
    default:
      return 8;
  }
}

/** The state every cursor has; the fields' accessors stand on the prototype. */
class CursorBase {
  readonly view: DataView;
  base = 0;

  constructor(view: ByteView) {
    this.view = new DataView(view.buffer, view.byteOffset, view.byteLength);
  }

  at(offset: number): this {
    this.base = offset;
    return this;
  }
}

/** Above 2^53 the number is rounded: larger than any size or count it can be compared with, and refused so. */
function readU64(view: DataView, at: number, little: boolean): number {
  const high = view.getUint32(little ? at + 4 : at, little);
  return high * 0x1_0000_0000 + view.getUint32(little ? at : at + 4, little);
}

function writeU64(view: DataView, at: number, name: string, value: number, little: boolean): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${name}: ${value} is not a u64 below 2^53`);
  view.setUint32(little ? at : at + 4, value >>> 0, little);
  view.setUint32(little ? at + 4 : at, Math.floor(value / 0x1_0000_0000), little);
}

type Accessor = PropertyDescriptor & ThisType<CursorBase>;

/** Getter and setter for a plain integer, chosen once when the struct is declared. */
function integerAccessor(
  kind: 'u8' | 'u16' | 'u32' | 'i16' | 'i32',
  offset: number,
  little: boolean,
): Accessor {
  switch (kind) {
    case 'u8':
      return {
        get() {
          return this.view.getUint8(this.base + offset);
        },
        set(value: number) {
          this.view.setUint8(this.base + offset, value);
        },
      };
    case 'u16':
      return {
        get() {
          return this.view.getUint16(this.base + offset, little);
        },
        set(value: number) {
          this.view.setUint16(this.base + offset, value, little);
        },
      };
    case 'i16':
      return {
        get() {
          return this.view.getInt16(this.base + offset, little);
        },
        set(value: number) {
          this.view.setInt16(this.base + offset, value, little);
        },
      };
    case 'u32':
      return {
        get() {
          return this.view.getUint32(this.base + offset, little);
        },
        set(value: number) {
          this.view.setUint32(this.base + offset, value, little);
        },
      };
    case 'i32':
      return {
        get() {
          return this.view.getInt32(this.base + offset, little);
        },
        set(value: number) {
          this.view.setInt32(this.base + offset, value, little);
        },
      };
  }
}

function wideAccessor(kind: 'u64' | 'bits64', name: string, offset: number, little: boolean): Accessor {
  if (kind === 'u64') {
    return {
      get() {
        return readU64(this.view, this.base + offset, little);
      },
      set(value: number) {
        writeU64(this.view, this.base + offset, name, value, little);
      },
    };
  }
  return {
    get() {
      return this.view.getBigUint64(this.base + offset, little);
    },
    set(value: bigint) {
      this.view.setBigUint64(this.base + offset, value, little);
    },
  };
}

/** `length` bytes of `view` from `offset`, bounded by the view as a DataView's accessors are. */
function bytesOf(view: ByteView, offset: number, length: number): Uint8Array {
  if (offset < 0 || offset + length > view.byteLength)
    throw new RangeError(`${length} bytes at ${offset} are outside the view of ${view.byteLength} bytes`);
  return new Uint8Array(view.buffer, view.byteOffset + offset, length);
}

function bytesAccessor(offset: number, length: number): Accessor {
  return {
    get() {
      return bytesOf(this.view, this.base + offset, length);
    },
  };
}

function defineField(prototype: object, { name, kind, offset, size }: FieldLayout, little: boolean): void {
  if (typeof kind === 'object') Object.defineProperty(prototype, name, bytesAccessor(offset, size));
  else if (kind === 'addr64') {
    const [low, high] = little ? [offset, offset + 4] : [offset + 4, offset];
    Object.defineProperty(prototype, `${name}Low`, integerAccessor('u32', low, little));
    Object.defineProperty(prototype, `${name}High`, integerAccessor('u32', high, little));
  } else if (kind === 'u64' || kind === 'bits64') {
    Object.defineProperty(prototype, name, wideAccessor(kind, name, offset, little));
  } else Object.defineProperty(prototype, name, integerAccessor(kind, offset, little));
}

/**
 * Declares a packed record. Padding that the specification has is declared as a field.
 *
 * @param name the specification's name of the struct, used in dumps and messages
 * @param declared the fields in the specification's order
 * @param order of the bytes of every integer in it
 */
export function struct<const F extends Fields>(
  name: string,
  declared: F,
  order: ByteOrder = 'little',
): Struct<F> {
  const little = order === 'little';
  const fields: FieldLayout[] = [];
  let size = 0;
  for (const [field, kind] of Object.entries(declared)) {
    fields.push({ name: field, kind, offset: size, size: sizeOf(kind) });
    size += sizeOf(kind);
  }
  // A class of its own for each struct, so that the engine sees one shape at each call site.
  const RecordCursor = class extends CursorBase {};
  for (const field of fields) defineField(RecordCursor.prototype, field, little);
  type TheCursor = RecordOf<F> & Cursor;

  const over = (view: ByteView): TheCursor => new RecordCursor(view) as unknown as TheCursor;

  return {
    name,
    size,
    fields,
    over,
    offsetOf(field) {
      const found = fields.find((each) => each.name === field);
      if (!found) throw new RangeError(`struct ${name} has no field ${field}`);
      return found.offset;
    },
    make(values = {}) {
      const bytes = new Uint8Array(size);
      const cursor = Object.assign(over(bytes), values);
      return Object.defineProperty(cursor, 'bytes', { value: bytes }) as TheCursor & {
        readonly bytes: Uint8Array;
      };
    },
    dump(view, offset = 0) {
      const bytes = bytesOf(view, offset, size);
      return [
        `struct ${name} (${size} bytes)`,
        ...fields.map((field) => dumpLine(bytes, field, little)),
      ].join('\n');
    },
    randomise(view, offset, nextByte) {
      const bytes = bytesOf(view, offset, size);
      for (let i = 0; i < size; i++) bytes[i] = nextByte() & 0xff;
    },
  };
}

function dumpLine(bytes: Uint8Array, { name, kind, offset, size }: FieldLayout, little: boolean): string {
  const raw = bytes.subarray(offset, offset + size);
  const hex = Array.from(raw, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  const value =
    typeof kind === 'object' ? '' : ` = 0x${integerOf(little ? raw : raw.toReversed()).toString(16)}`;
  return `  +0x${offset.toString(16).padStart(3, '0')}  ${hex.padEnd(24)} ${name}${value}`;
}

/** The value of bytes in little-endian order. */
function integerOf(raw: Uint8Array): bigint {
  return raw.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
