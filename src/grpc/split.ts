import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
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
  for (const field of heavyFieldsOf(desc)) {
    const oneof = field.oneof === undefined ? undefined : (values[field.oneof.localName] as OneofValue);
    const value =
      oneof === undefined ? values[field.localName] : oneof.case === field.localName ? oneof.value : undefined;
    const parts = value === undefined ? undefined : partsOf(field, value);
    if (parts === undefined) continue;
    const without =
      field.oneof === undefined
        ? { [field.localName]: field.fieldKind === "message" ? undefined : EMPTY }
        : { [field.oneof.localName]: { case: undefined } };
    const head = new BinaryWriter()
      .raw(toBinary(desc, { ...message, ...without }))
      .tag(field.number, WireType.LengthDelimited)
      .uint32(parts.head.length + parts.data.length)
      .raw(parts.head)
      .finish();
    return { head, data: parts.data };
  }
  return undefined;
}

type OneofValue = { case?: string; value?: unknown };
const EMPTY = new Uint8Array();

function partsOf(field: DescField, value: unknown): Split | undefined {
  if (field.fieldKind === "message") return split(field.message, value as Message);
  return value instanceof Uint8Array && value.length >= FROM_BYTES ? { head: EMPTY, data: value } : undefined;
}

const heavyFields = new WeakMap<DescMessage, DescField[]>();

/** Fields that may hold the weight of a message. */
function heavyFieldsOf(desc: DescMessage): DescField[] {
  let fields = heavyFields.get(desc);
  if (fields === undefined) {
    fields = desc.fields.filter(
      (field) =>
        (field.fieldKind === "message" && !field.delimitedEncoding) ||
        (field.fieldKind === "scalar" &&
          field.scalar === ScalarType.BYTES &&
          (field.oneof !== undefined || field.presence === FeatureSet_FieldPresence.IMPLICIT)),
    );
    heavyFields.set(desc, fields);
  }
  return fields;
}
