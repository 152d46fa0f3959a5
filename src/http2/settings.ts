import { ConnectionError, ErrorCode, FRAME_BYTES, MAX_WINDOW_BYTES, Setting, WINDOW_BYTES } from "./frame.ts";

const MAX_FRAME_BYTES = 2 ** 24 - 1;
const DEFAULT_TABLE_BYTES = 4096;
/** HPACK: the dynamic table has no room from here on (RFC 7541 section 6.3). */
const NO_TABLE = Buffer.from([0x20]);

/** What a client has said of itself (RFC 9113 section 6.5), as far as it matters here. */
export class PeerSettings {
  /** Bytes that may be sent on a new stream. */
  initialWindow = WINDOW_BYTES;
  #owesTableSize = false;

  /** The payload of a SETTINGS frame. Throws ConnectionError. */
  take(payload: Buffer): void {
    for (let at = 0; at < payload.length; at += 6) this.#set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  }

  /** A header block that goes next; where the client has made its table smaller, that has to be said first, though none is used. */
  told(block: Uint8Array): Uint8Array {
    if (!this.#owesTableSize) return block;
    this.#owesTableSize = false;
    return Buffer.concat([NO_TABLE, block]);
  }

  #set(id: number, value: number): void {
    if (id === Setting.HEADER_TABLE_SIZE) this.#owesTableSize ||= value < DEFAULT_TABLE_BYTES;
    else if (id === Setting.INITIAL_WINDOW_SIZE) {
      if (value > MAX_WINDOW_BYTES) throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large");
      this.initialWindow = value;
    } else if (id === Setting.ENABLE_PUSH && value > 1) throw wrong("ENABLE_PUSH", value);
    else if (id === Setting.MAX_FRAME_SIZE && (value < FRAME_BYTES || value > MAX_FRAME_BYTES))
      throw wrong("MAX_FRAME_SIZE", value);
  }
}

const wrong = (name: string, value: number) =>
  new ConnectionError(ErrorCode.PROTOCOL_ERROR, `${name} cannot be ${value}`);
