/*
 * Frames of HTTP/2 (RFC 9113 sections 4, 6 and 7).
 */

export const FrameType = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const Flag = { END_STREAM: 0x1, ACK: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const;

export const ErrorCode = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;

export const Setting = {
  HEADER_TABLE_SIZE: 1,
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
} as const;

/** What every connection of a client begins with (section 3.4). */
export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const HEADER_BYTES = 9;
/** The largest payload that a peer takes who has not said otherwise, and so the largest that is taken here. */
export const FRAME_BYTES = 16_384;
/** The window of a connection, and of a stream, of who has not said otherwise. */
export const WINDOW_BYTES = 65_535;
export const MAX_WINDOW_BYTES = 2 ** 31 - 1;

/** What ends a connection for the fault of its client (section 5.4.1). */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

type Bytes = Buffer<ArrayBuffer>;

/** Writes the header of a frame at `at`, of a payload of `length` bytes; returns where that begins. */
export function putHeader(
  bytes: Bytes,
  at: number,
  type: number,
  flags: number,
  stream: number,
  length: number,
): number {
  bytes[at] = length >> 16;
  bytes[at + 1] = length >> 8;
  bytes[at + 2] = length;
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  bytes[at + 5] = stream >> 24;
  bytes[at + 6] = stream >> 16;
  bytes[at + 7] = stream >> 8;
  bytes[at + 8] = stream;
  return at + HEADER_BYTES;
}

/** Writes a whole frame at `at`; returns where it ends. */
export function putFrame(
  bytes: Bytes,
  at: number,
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array,
): number {
  const begin = putHeader(bytes, at, type, flags, stream, payload.length);
  bytes.set(payload, begin);
  return begin + payload.length;
}

/** A whole frame. */
export function frameOf(type: number, flags: number, stream: number, payload: Uint8Array): Bytes {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  putFrame(bytes, 0, type, flags, stream, payload);
  return bytes;
}

/** Header fields as HEADERS and, where a frame cannot hold them, CONTINUATION. */
export function headerFrames(stream: number, block: Uint8Array, endsStream: boolean): Bytes {
  const flags = endsStream ? Flag.END_STREAM : 0;
  if (block.length <= FRAME_BYTES) return frameOf(FrameType.HEADERS, flags | Flag.END_HEADERS, stream, block);
  const frames = [frameOf(FrameType.HEADERS, flags, stream, block.subarray(0, FRAME_BYTES))];
  for (let at = FRAME_BYTES; at < block.length; at += FRAME_BYTES) {
    const part = block.subarray(at, at + FRAME_BYTES);
    const isLast = at + part.length === block.length;
    frames.push(frameOf(FrameType.CONTINUATION, isLast ? Flag.END_HEADERS : 0, stream, part));
  }
  return Buffer.concat(frames);
}

/** A frame whose payload is numbers of 32 bits. */
function frameOfNumbers(type: number, stream: number, ...numbers: number[]): Bytes {
  const payload = Buffer.allocUnsafe(4 * numbers.length);
  numbers.forEach((number, index) => {
    payload.writeUInt32BE(number, 4 * index);
  });
  return frameOf(type, 0, stream, payload);
}

export const resetFrame = (stream: number, code: number): Bytes => frameOfNumbers(FrameType.RST_STREAM, stream, code);

export const windowFrame = (stream: number, increment: number): Bytes =>
  frameOfNumbers(FrameType.WINDOW_UPDATE, stream, increment);

export const goawayFrame = (lastStream: number, code: number): Bytes =>
  frameOfNumbers(FrameType.GOAWAY, 0, lastStream, code);

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Bytes {
  const payload = Buffer.allocUnsafe(6 * settings.length);
  settings.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  });
  return frameOf(FrameType.SETTINGS, 0, 0, payload);
}
