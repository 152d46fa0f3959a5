import { create, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

/** Lengths up to here are one byte on the wire; so is all of ASCII. */
const ONE_BYTE = 0x7f;

/**
 * Reads messages in which nothing but one short text of ASCII stands, as in most requests here, which name an id; undefined for
 * all others, which are the library's. That (protobuf-es 2.17) makes a reader, a view and a decoder for each message, which
 * are a tenth of a short call. The message begins at `from`.
 */
export function shortReader(desc: DescMessage): (bytes: Buffer, from: number) => Message | undefined {
  const names = new Map<number | undefined, string>();
  for (const field of desc.fields) {
    if (field.fieldKind !== "scalar" || field.scalar !== ScalarType.STRING) continue;
    if (field.oneof !== undefined || field.presence !== FeatureSet_FieldPresence.IMPLICIT) continue;
    names.set((field.number << 3) | WireType.LengthDelimited, field.localName);
  }
  return (bytes, from) => {
    const name = names.get(bytes[from]);
    const length = bytes.length - from - 2;
    if (name === undefined || length > ONE_BYTE || bytes[from + 1] !== length) return undefined;
    for (let at = from + 2; at < bytes.length; at++) if ((bytes[at] ?? 0) > ONE_BYTE) return undefined;
    return Object.assign(create(desc), { [name]: bytes.toString("latin1", from + 2) });
  };
}
