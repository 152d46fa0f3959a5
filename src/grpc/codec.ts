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
import { type Split, split } from "./split.ts";

/** Messages of a method as bytes and back; throws ConnectError. */
export interface Codec {
  readonly contentType: string;
  parse(bytes: Uint8Array): Message;
  serialize(message: Message): Uint8Array;
  /** The same in two parts, where that saves copies of what is large. */
  split(message: Message): Split | undefined;
}

export interface CodecOptions {
  readonly binaryOptions?: Partial<BinaryReadOptions & BinaryWriteOptions> | undefined;
  readonly jsonOptions?: Partial<JsonReadOptions & JsonWriteOptions> | undefined;
}

/** As Connect's own handlers have it: a broken message of protobuf is INTERNAL, one of JSON INVALID_ARGUMENT. */
export const binaryCodec = ({ input, output }: DescMethod, { binaryOptions }: CodecOptions): Codec => ({
  contentType: "application/grpc+proto",
  parse: (bytes) =>
    bytes.length === 0
      ? create(input)
      : attempt("parse binary", Code.Internal, () => fromBinary(input, bytes, binaryOptions)),
  serialize: kept((message) =>
    attempt("serialize binary", Code.Internal, () => toBinary<DescMessage>(output, message, binaryOptions)),
  ),
  split: (message) => attempt("serialize binary", Code.Internal, () => split(output, message)),
});

/** `serialize`, once for each message that is frozen: nobody changes it any more, and its handler will give it again. */
function kept(serialize: Codec["serialize"]): Codec["serialize"] {
  const bytes = new WeakMap<Message, Uint8Array>();
  return (message) => {
    if (!Object.isFrozen(message)) return serialize(message);
    let known = bytes.get(message);
    if (known === undefined) {
      known = serialize(message);
      bytes.set(message, known);
    }
    return known;
  };
}

/** Fields that are not known are ignored, as everywhere in Connect. */
export function jsonCodec({ input, output }: DescMethod, { jsonOptions }: CodecOptions): Codec {
  const options = { ignoreUnknownFields: true, ...jsonOptions };
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  return {
    contentType: "application/grpc+json",
    parse: (bytes) =>
      attempt("parse JSON", Code.InvalidArgument, () => fromJsonString(input, decoder.decode(bytes), options)),
    serialize: (message) =>
      attempt("serialize JSON", Code.Internal, () =>
        encoder.encode(toJsonString<DescMessage>(output, message, options)),
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
