import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/** Shorter values are left to the library: a copy of them costs less than another write. In bytes. */
const FROM_BYTES = 4 * 1024;

/** A message in two parts, one after the other on the wire. */
export interface Split {
  /** All of it but the bytes of `data`. */
  readonly head: Uint8Array;
  /** The value of a field as it is, and not a copy. */
  readonly data: Uint8Array;
}

/**
 * A message whose weight is one field of bytes, in itself or in a message inside: output of a command, a chunk of a log.
 * Undefined when it has no such field. The library (protobuf-es 2.17) copies these bytes twice, into memory that is new
 * each time; without that, a stream takes less than half of the time.
 * The field goes last, and so does the message that holds it: on the wire, fields may stand in any order.
 */
export function split(desc: DescMessage, message: Message): Split | undefined {
  // Messages are objects whose properties have the names of their fields.
  const values = message as unknown as Record<string, unknown>;
  for (const heavy of heavyFieldsOf(desc)) {
    const { field, property, isAlone } = heavy;
    const holder = values[property];
    const value = field.oneof === undefined ? holder : setIn(holder as OneofValue, field.localName);
    const parts = value === undefined ? undefined : partsOf(field, value);
    if (parts === undefined) continue;
    if (isAlone) return { head: headOf(EMPTY, heavy, parts), data: parts.data };
    values[property] = heavy.unset; // for a moment: a copy of the message costs more than all else here
    try {
      return { head: headOf(toBinary(desc, message), heavy, parts), data: parts.data };
    } finally {
      values[property] = holder;
    }
  }
  return undefined;
}

const setIn = (oneof: OneofValue, name: string): unknown => (oneof.case === name ? oneof.value : undefined);

/** All other fields, then this one but for the data in it. */
function headOf(others: Uint8Array, { tag }: HeavyField, { head, data }: Split): Uint8Array {
  const length = varint(head.length + data.length);
  const bytes = new Uint8Array(others.length + tag.length + length.length + head.length);
  bytes.set(others);
  bytes.set(tag, others.length);
  bytes.set(length, others.length + tag.length);
  bytes.set(head, others.length + tag.length + length.length);
  return bytes;
}

/** A number of up to 32 bits (https://protobuf.dev/programming-guides/encoding/#varints). */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return bytes;
}

type OneofValue = { case?: string; value?: unknown };
const EMPTY = new Uint8Array();

function partsOf(field: DescField, value: unknown): Split | undefined {
  if (field.fieldKind === "message") return split(field.message, value as Message);
  return value instanceof Uint8Array && value.length >= FROM_BYTES ? { head: EMPTY, data: value } : undefined;
}

/** A field that may hold the weight of a message. */
interface HeavyField {
  readonly field: DescField;
  /** Of the message, where it or its oneof stands. */
  readonly property: string;
  /** What stands there where it is not set. */
  readonly unset: unknown;
  /** Its key on the wire. */
  readonly tag: readonly number[];
  /** Whether nothing can stand beside it. */
  readonly isAlone: boolean;
}

const heavyFields = new WeakMap<DescMessage, readonly HeavyField[]>();

function heavyFieldsOf(desc: DescMessage): readonly HeavyField[] {
  let fields = heavyFields.get(desc);
  if (fields === undefined) {
    fields = desc.fields.filter(mayBeHeavy).map((field) => ({
      field,
      property: field.oneof?.localName ?? field.localName,
      unset: field.oneof === undefined ? (field.fieldKind === "message" ? undefined : EMPTY) : { case: undefined },
      tag: varint((field.number << 3) | WireType.LengthDelimited),
      isAlone: desc.fields.every(
        (other) => other === field || (field.oneof !== undefined && other.oneof === field.oneof),
      ),
    }));
    heavyFields.set(desc, fields);
  }
  return fields;
}

const mayBeHeavy = (field: DescField): boolean =>
  (field.fieldKind === "message" && !field.delimitedEncoding) ||
  (field.fieldKind === "scalar" &&
    field.scalar === ScalarType.BYTES &&
    (field.oneof !== undefined || field.presence === FeatureSet_FieldPresence.IMPLICIT));
