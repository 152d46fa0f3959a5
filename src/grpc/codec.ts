import {
  type BinaryReadOptions,
  type BinaryWriteOptions,
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  fromJsonString,
  type JsonReadOptions,
  type JsonWriteOptions,
  type Message,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { PREFIX_BYTES } from "./envelopes.ts";
import { shortReader } from "./short.ts";
import { type Split, split } from "./split.ts";

/** Messages of a method as bytes and back; throws ConnectError. */
export interface Codec {
  readonly contentType: string;
  /** The message that begins at `from`, to the end of the bytes. */
  parse(bytes: Buffer, from?: number): Message;
  /** Its frame on the wire: not compressed, with its prefix. */
  frame(message: Message): Uint8Array;
  /** The same in two parts, where that saves copies of what is large. */
  split(message: Message): Split | undefined;
}

export interface CodecOptions {
  readonly binaryOptions?: Partial<BinaryReadOptions & BinaryWriteOptions> | undefined;
  readonly jsonOptions?: Partial<JsonReadOptions & JsonWriteOptions> | undefined;
}

/** As Connect's own handlers have it: a broken message of protobuf is INTERNAL, one of JSON INVALID_ARGUMENT. */
export function binaryCodec({ input, output }: DescMethod, { binaryOptions }: CodecOptions): Codec {
  const short = shortReader(input);
  const read = (bytes: Uint8Array) =>
    attempt("parse binary", Code.Internal, () => fromBinary(input, bytes, binaryOptions));
  return {
    contentType: "application/grpc+proto",
    parse: (bytes, from = 0) =>
      bytes.length === from ? create(input) : (short(bytes, from) ?? read(bytes.subarray(from))),
    frame: kept((message) =>
      framed(
        0,
        attempt("serialize binary", Code.Internal, () => toBinary<DescMessage>(output, message, binaryOptions)),
      ),
    ),
    split: (message) => attempt("serialize binary", Code.Internal, () => split(output, message)),
  };
}

/** `frame`, once for each message that is frozen: nobody changes it any more, and its handler will give it again. */
function kept(frame: Codec["frame"]): Codec["frame"] {
  const frames = new WeakMap<Message, Uint8Array>();
  return (message) => {
    if (!Object.isFrozen(message)) return frame(message);
    let known = frames.get(message);
    if (known === undefined) {
      known = frame(message);
      frames.set(message, known);
    }
    return known;
  };
}

/** A message with its prefix. */
export const framed = (flags: number, message: Uint8Array): Buffer => prefixed(flags, message, 0);

/** The same without its last bytes, which are still to follow. */
export function prefixed(flags: number, head: ArrayLike<number>, restBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(PREFIX_BYTES + head.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(head.length + restBytes, 1);
  bytes.set(head, PREFIX_BYTES);
  return bytes;
}

/** Fields that are not known are ignored, as everywhere in Connect. */
export function jsonCodec({ input, output }: DescMethod, { jsonOptions }: CodecOptions): Codec {
  const options = { ignoreUnknownFields: true, ...jsonOptions };
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  return {
    contentType: "application/grpc+json",
    parse: (bytes, from = 0) =>
      attempt("parse JSON", Code.InvalidArgument, () =>
        fromJsonString(input, decoder.decode(bytes.subarray(from)), options),
      ),
    frame: (message) =>
      framed(
        0,
        attempt("serialize JSON", Code.Internal, () =>
          encoder.encode(toJsonString<DescMessage>(output, message, options)),
        ),
      ),
    split: () => undefined,
  };
}

function attempt<T>(what: string, code: Code, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new ConnectError(`${what}: ${text}`, code, undefined, undefined, error);
  }
}
