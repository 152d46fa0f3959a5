import { Code, ConnectError } from "@connectrpc/connect";
import { compressionGzip } from "@connectrpc/connect-node";

/** One way to make messages smaller; the only one is gzip. */
export type Compression = typeof compressionGzip;

/** How the two directions of one call are compressed; undefined: not at all. */
export interface Compressions {
  readonly request: Compression | undefined;
  readonly response: Compression | undefined;
  /** Why the request cannot be read: UNIMPLEMENTED, with what could be. */
  readonly error: ConnectError | undefined;
}

const NONE: Compressions = { request: undefined, response: undefined, error: undefined };

/**
 * From `grpc-encoding` and `grpc-accept-encoding`. Who says nothing about answers gets them as they ask: see
 * https://github.com/grpc/grpc/blob/master/doc/compression.md
 * A stream is compressed only for who compresses, too: Connect's clients for Node.js say that they can read gzip without being
 * asked, and to make it takes up to five times the CPU of all else that is done with output.
 */
export function negotiated(
  encoding: string | undefined,
  accepted: string | undefined,
  isStream: boolean,
): Compressions {
  const { name } = compressionGzip;
  const request = encoding === name ? compressionGzip : undefined;
  const isKnown = request !== undefined || encoding === undefined || encoding === "identity";
  if (isKnown && request === undefined && (isStream || !accepted)) return NONE;
  const accepts = accepted ? accepted.split(",").some((each) => each.trim() === name) : request !== undefined;
  const error = isKnown ? undefined : unknownEncoding(encoding);
  return { request, response: accepts ? compressionGzip : undefined, error };
}

function unknownEncoding(encoding: string): ConnectError {
  const { name } = compressionGzip;
  const text = `unknown compression "${encoding}": supported encodings are ${name}`;
  return new ConnectError(text, Code.Unimplemented);
}
