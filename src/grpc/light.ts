import { type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FeatureSet_FieldPresence, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

const MAX_INT32 = 0x7fff_ffff;

/** Appends fields as they are on the wire. False: they are left to the library, and nothing was appended. */
export type Light = (message: Message, bytes: number[]) => boolean;

/** Appends a field, if it is set. False: its value is left to the library. */
type Put = (values: Record<string, unknown>, bytes: number[]) => boolean;

/**
 * Writes what stands beside the heavy field of a message (split.ts): counters and timestamps. Undefined where anything else may stand
 * there. The library (protobuf-es 2.17) makes a writer and its lists for each message, and takes 7 % of all that a stream of
 * output costs.
 */
export function lightFields(desc: DescMessage, heavy: DescField): Light | undefined {
  const puts: Put[] = [];
  for (const field of desc.fields) {
    if (field === heavy || (field.oneof !== undefined && field.oneof === heavy.oneof)) continue;
    const put = putOf(field);
    if (put === undefined) return undefined;
    puts.push(put);
  }
  return (message, bytes) => {
    if (message.$unknown !== undefined) return false;
    const { length } = bytes;
    // Messages are objects whose properties have the names of their fields.
    const values = message as unknown as Record<string, unknown>;
    for (const put of puts)
      if (!put(values, bytes)) {
        bytes.length = length;
        return false;
      }
    return true;
  };
}

function putOf(field: DescField): Put | undefined {
  if (field.oneof !== undefined) return undefined;
  const { localName: name, number } = field;
  if (field.fieldKind === "scalar" && field.scalar === ScalarType.UINT64) {
    const isImplicit = field.presence === FeatureSet_FieldPresence.IMPLICIT;
    return isImplicit && !field.longAsString ? (values, bytes) => putCount(number, values[name], bytes) : undefined;
  }
  if (field.fieldKind === "message" && !field.delimitedEncoding && field.message.typeName === TimestampSchema.typeName)
    return (values, bytes) => putTimestamp(number, values[name] as Timestamp | undefined, bytes);
  return undefined;
}

function putCount(number: number, value: unknown, bytes: number[]): boolean {
  const count = Number(value);
  if (!Number.isSafeInteger(count) || count < 0) return false;
  if (count > 0) {
    putVarint((number << 3) | WireType.Varint, bytes);
    putVarint(count, bytes);
  }
  return true;
}

function putTimestamp(number: number, value: Timestamp | undefined, bytes: number[]): boolean {
  if (value === undefined) return true;
  if (value.$unknown !== undefined || value.nanos > MAX_INT32) return false; // which the library refuses
  putVarint((number << 3) | WireType.LengthDelimited, bytes);
  const at = bytes.push(0); // its length, always one byte
  if (!putCount(1, value.seconds, bytes) || !putCount(2, value.nanos, bytes)) return false;
  bytes[at - 1] = bytes.length - at;
  return true;
}

/** Appends a number of up to 53 bits (https://protobuf.dev/programming-guides/encoding/#varints). */
export function putVarint(value: number, bytes: number[]): void {
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
}
