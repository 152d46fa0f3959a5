import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { type Light, lightFields, putVarint } from "./light.ts";

/** Shorter values are left to the library: a copy of them costs less than another write. In bytes. */
const FROM_BYTES = 4 * 1024;
/** So is a message with more beside such a value, as of an exit with two tails: byte by byte, that would take ten times as long. */
const MOST_OTHERS = 1024;

/** A message in two parts, one after the other on the wire. */
export interface Split {
  /** All of it but the bytes of `data`. */
  readonly head: readonly number[];
  /** The value of a field as it is, and not a copy. */
  readonly data: Uint8Array;
}

/**
 * A message whose weight is one field of bytes, in itself or in a message inside: output of a command, a chunk of a log.
 * Undefined when it has no such field, or much beside it. The library (protobuf-es 2.17) copies these bytes twice, into memory
 * that is new each time; without that, a stream takes less than half of the time.
 * The field goes last, and so does the message that holds it: on the wire, fields may stand in any order.
 */
export function split(desc: DescMessage, message: Message): Split | undefined {
  // Messages are objects whose properties have the names of their fields.
  const values = message as unknown as Record<string, unknown>;
  for (const heavy of heavyFieldsOf(desc)) {
    const { field, property } = heavy;
    const holder = values[property];
    const value = field.oneof === undefined ? holder : setIn(holder as OneofValue, field.localName);
    const parts = value === undefined ? undefined : partsOf(field, value);
    if (parts === undefined) continue;
    const head: number[] = [];
    if (!heavy.light?.(message, head)) {
      values[property] = heavy.unset; // for a moment: a copy of the message costs more than all else here
      try {
        const others = toBinary(desc, message);
        if (others.length > MOST_OTHERS) return undefined;
        for (const byte of others) head.push(byte);
      } finally {
        values[property] = holder;
      }
    }
    putVarint((field.number << 3) | WireType.LengthDelimited, head);
    putVarint(parts.head.length + parts.data.length, head);
    for (const byte of parts.head) head.push(byte);
    return { head, data: parts.data };
  }
  return undefined;
}

const setIn = (oneof: OneofValue, name: string): unknown => (oneof.case === name ? oneof.value : undefined);

type OneofValue = { case?: string; value?: unknown };
const EMPTY = new Uint8Array();

function partsOf(field: DescField, value: unknown): Split | undefined {
  if (field.fieldKind === "message") return split(field.message, value as Message);
  return value instanceof Uint8Array && value.length >= FROM_BYTES ? { head: [], data: value } : undefined;
}

/** A field that may hold the weight of a message. */
interface HeavyField {
  readonly field: DescField;
  /** Of the message, where it or its oneof stands. */
  readonly property: string;
  /** What stands there where it is not set. */
  readonly unset: unknown;
  /** Writes what stands beside it, where that is little. */
  readonly light: Light | undefined;
}

const heavyFields = new WeakMap<DescMessage, readonly HeavyField[]>();

function heavyFieldsOf(desc: DescMessage): readonly HeavyField[] {
  let fields = heavyFields.get(desc);
  if (fields === undefined) {
    fields = desc.fields.filter(mayBeHeavy).map((field) => ({
      field,
      property: field.oneof?.localName ?? field.localName,
      unset: field.oneof === undefined ? (field.fieldKind === "message" ? undefined : EMPTY) : { case: undefined },
      light: lightFields(desc, field),
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
