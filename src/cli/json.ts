import { type DescMessage, type MessageShape, toJsonString } from "@bufbuild/protobuf";
import { print } from "./output.ts";

/**
 * One message as one line of protobuf's JSON, in its standard spelling: names in camelCase, 64-bit numbers as strings, bytes in
 * base64, times in RFC 3339. Fields with their default are written too, so that a reader finds the same ones every time.
 */
export function printJson<Schema extends DescMessage>(schema: Schema, message: MessageShape<Schema>): Promise<void> {
  return print(`${toJsonString(schema, message, { alwaysEmitImplicit: true })}\n`);
}
