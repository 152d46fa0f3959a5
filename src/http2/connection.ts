import type { Socket } from "node:net";
import type { LimitName, Usage } from "../limits.ts";
import type { Log } from "../log.ts";
import { releaseRead } from "../memory.ts";
import { Budget, type Violation } from "./budget.ts";
import {
  ConnectionError,
  ErrorCode,
  Flag,
  FrameType,
  frameOf,
  goawayFrame,
  MAX_WINDOW_BYTES,
  resetFrame,
  Setting,
  settingsFrame,
  WINDOW_BYTES,
  windowFrame,
} from "./frame.ts";
import { areTrailers, headOf } from "./head.ts";
import { CompressionError, type Field, HeaderDecoder, MAX_LIST_BYTES } from "./hpack.ts";
import { type FrameHandler, FrameReader } from "./reader.ts";
import { Recent } from "./recent.ts";
import { PeerSettings } from "./settings.ts";
import { Http2Stream, STREAM_WINDOW, type StreamOwner } from "./stream.ts";
import { Streams } from "./streams.ts";
import { Writer } from "./writer.ts";

/** What a client may send on all streams together before it is told that there is room for more, in bytes. */
const CONNECTION_WINDOW = 1024 * 1024;
/** Answers to its frames that a client does not read, in bytes, above which its connection is ended. */
const MAX_UNREAD = 256 * 1024;
/** A client may take so long to read why it is sent away: what it still sends would make its system drop that unread. */
const PARTING_MS = 250;
/** And may say so much meanwhile. */
const PARTING_BYTES = 1024 * 1024;

export interface Http2Options {
  readonly usage: Usage;
  readonly log: Log;
  /** Serves a request; must set at once what it wants to hear of the stream. */
  readonly serve: (stream: Http2Stream) => void;
  /** Told of a client that does what costs the server more than itself; its connection is ended. */
  readonly overdone: (kind: Violation, address: string | undefined) => void;
}

class Overdone extends Error {
  readonly kind: Violation;

  constructor(kind: Violation) {
    super(`more frames than any client needs: ${kind}`);
    this.kind = kind;
  }
}

/** One HTTP/2 connection of a client (RFC 9113), from its preface to its end. */
export class Http2Connection implements FrameHandler, StreamOwner {
  readonly writer: Writer;
  sendWindow = WINDOW_BYTES;
  readonly #socket: Socket;
  readonly #options: Http2Options;
  readonly #reader = new FrameReader(this);
  readonly #decoder = new HeaderDecoder();
  readonly #budget: Budget;
  readonly #peer = new PeerSettings();
  readonly #streams = new Streams();
  /** Streams that are no more, for frames that come too late. */
  readonly #recent = new Recent();
  /** Those that have more to send than there is room for, in the order of their turns. */
  #waiting: Http2Stream[] = [];
  /** The last stream that the client has opened; of those, the last that is served. */
  #lastId = 0;
  #lastServed = 0;
  /** Bytes of answers to frames since the client has read all. */
  #unread = 0;
  #partingBytes = 0;
  #receiveWindow = CONNECTION_WINDOW;
  #hasSettings = false;
  #isClosing = false;
  #isOver = false;
  #now = performance.now();
  /** Since when the beginning of the connection, or header fields, are on their way and not complete. */
  #blockSince: number | undefined = this.#now;
  #heardAt = this.#now;
  #quietSince = this.#now;
  #pingedAt: number | undefined;

  constructor(socket: Socket, options: Http2Options) {
    this.#socket = socket;
    this.#options = options;
    this.#budget = new Budget(this.#now);
    this.writer = new Writer(socket);
    this.writer.send(
      settingsFrame([
        [Setting.MAX_CONCURRENT_STREAMS, options.usage.limits.streamsPerConnection],
        [Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW],
        [Setting.MAX_HEADER_LIST_SIZE, MAX_LIST_BYTES],
      ]),
    );
    this.writer.send(windowFrame(0, CONNECTION_WINDOW - WINDOW_BYTES));
    socket.on("data", (chunk) => {
      if (typeof chunk === "string") return; // it never is: no encoding is set
      this.read(chunk);
      releaseRead(chunk);
    });
    socket.on("drain", () => {
      this.#unread = 0;
      this.#sendOn();
    });
    socket.on("close", () => this.#lose(ErrorCode.CANCEL));
  }

  /** Takes what the client has sent. */
  read(chunk: Buffer): void {
    if (this.#isOver) {
      // Its client is being sent away. Read, or its system would not be told that what it was sent has come.
      this.#partingBytes += chunk.length;
      if (this.#partingBytes > PARTING_BYTES) this.#socket.destroy();
      return;
    }
    this.#now = performance.now();
    this.#heardAt = this.#now;
    this.#budget.at(this.#now);
    try {
      this.#reader.read(chunk);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Opens no stream any more and tells the client so (GOAWAY); ends after the last stream. */
  close(): void {
    if (this.#isClosing || this.#isOver) return;
    this.#isClosing = true;
    this.writer.send(goawayFrame(this.#lastServed, ErrorCode.NO_ERROR));
    for (const stream of this.#streams.all()) if (stream.isAnswered) stream.reset(ErrorCode.NO_ERROR);
    this.#settle();
  }

  /** Ends it, and every stream on it, at once. */
  destroy(): void {
    if (!this.#isOver) this.#end(ErrorCode.INTERNAL_ERROR);
    else setTimeout(() => this.#socket.destroy(), PARTING_MS);
  }

  /** Keeps its times within the limits, often enough for the shortest of them; returns the one for which it is to be dropped. */
  look(now: number): LimitName | undefined {
    if (this.#isOver) return undefined;
    const { usage } = this.#options;
    const { headerMs, idleMs, responseMs } = usage.limits;
    if (now - (this.#blockSince ?? now) >= headerMs) return "headerMs";
    for (const stream of this.#streams.all()) {
      if (now - (stream.overdueSince(now) ?? now) < responseMs) continue;
      usage.refuse("responseMs"); // it would be kept for as long as its client likes
      stream.reset(stream.isAnswered ? ErrorCode.NO_ERROR : ErrorCode.CANCEL);
    }
    if (this.#streams.size === 0 && now - this.#quietSince >= idleMs && !this.#isClosing) {
      usage.refuse("idleMs");
      this.close(); // by GOAWAY, so that no call is lost
    }
    return this.#keepAlive(now);
  }

  // FrameHandler.

  announced(type: number, flags: number, id: number, length: number): void {
    if (!this.#hasSettings && (type !== FrameType.SETTINGS || (flags & Flag.ACK) !== 0))
      throw protocolError("the first frame is not SETTINGS");
    this.#spend(this.#cost(type, flags, id, length));
    if (type === FrameType.HEADERS) this.#blockSince = this.#now;
    if (type === FrameType.DATA) this.#announceData(id, length);
  }

  data(id: number, flags: number, bytes: Buffer, counted: number, isLast: boolean): void {
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.isComplete) return; // its client has been told
    if (!stream.take(bytes, counted)) this.#resetStream(id, ErrorCode.PROTOCOL_ERROR);
    else if (isLast && (flags & Flag.END_STREAM) !== 0) this.#complete(stream);
  }

  headers(id: number, flags: number, block: Buffer): void {
    this.#blockSince = undefined;
    const fields = this.#decoder.decode(block); // whatever comes of them: the next block builds on it
    const endsStream = (flags & Flag.END_STREAM) !== 0;
    const stream = this.#streams.get(id);
    if (stream !== undefined) this.#takeTrailers(stream, fields, endsStream);
    else if (id > this.#lastId && id % 2 === 1) this.#open(id, fields, endsStream);
    else this.#takeLateHeaders(id);
  }

  frame(type: number, flags: number, id: number, payload: Buffer): void {
    switch (type) {
      case FrameType.SETTINGS:
        this.#takeSettings(flags, id, payload);
        return;
      case FrameType.PING:
        checkFrame(id === 0, payload.length === 8);
        if ((flags & Flag.ACK) === 0) this.#reply(frameOf(FrameType.PING, Flag.ACK, 0, payload));
        return;
      case FrameType.RST_STREAM:
        checkFrame(id !== 0 && !this.#isIdle(id), payload.length === 4);
        this.#streams.get(id)?.lose(payload.readUInt32BE());
        return;
      case FrameType.WINDOW_UPDATE:
        checkFrame(!this.#isIdle(id), payload.length === 4);
        this.#widen(id, payload.readUInt32BE() & MAX_WINDOW_BYTES);
        return;
      case FrameType.GOAWAY:
        checkFrame(id === 0, payload.length >= 8);
        return;
      case FrameType.PRIORITY: // says nothing any more (section 5.3.2)
        if (id === 0) throw protocolError("PRIORITY of no stream");
        checkFrame(true, payload.length === 5 || !this.#isIdle(id));
        if (payload.length !== 5) this.#resetStream(id, ErrorCode.FRAME_SIZE_ERROR);
        return;
      case FrameType.PUSH_PROMISE:
        throw protocolError("clients promise nothing");
      default: // unknown ones are ignored (section 5.5)
    }
  }

  // StreamOwner.

  told(block: Uint8Array): Uint8Array {
    return this.#peer.told(block);
  }

  sent(bytes: number): void {
    this.sendWindow -= bytes;
    this.#budget.earnPing();
  }

  answered(stream: Http2Stream): void {
    if (this.#isClosing) setTimeout(() => stream.reset(ErrorCode.NO_ERROR), PARTING_MS).unref();
  }

  waits(stream: Http2Stream): void {
    if (stream.isWaiting) return;
    stream.isWaiting = true;
    this.#waiting.push(stream);
  }

  closed(stream: Http2Stream, wasReset: boolean): void {
    this.#streams.delete(stream);
    if (stream.isWaiting) this.#waiting = this.#waiting.filter((each) => each !== stream);
    this.#recent.add(stream.id, wasReset);
    this.#options.usage.give("streams");
    if (this.#streams.size > 0) return;
    this.#quietSince = performance.now();
    this.#settle();
  }

  #cost(type: number, flags: number, id: number, length: number): Violation | undefined {
    const isAck = (flags & Flag.ACK) !== 0;
    switch (type) {
      case FrameType.DATA:
        return this.#budget.spendData(length, (flags & Flag.END_STREAM) !== 0);
      case FrameType.HEADERS: // trailers are none that a call here has
        return this.#budget.spendBlock(length, true) ?? this.#budget.spend(id > this.#lastId ? "streams" : "others");
      case FrameType.CONTINUATION:
        return this.#budget.spendBlock(length, false);
      case FrameType.RST_STREAM:
        return this.#budget.spend("resets");
      case FrameType.SETTINGS:
        return this.#budget.spend(isAck ? "others" : "settings");
      case FrameType.PING:
        return this.#budget.spend(isAck ? "others" : "pings");
      case FrameType.WINDOW_UPDATE:
        return this.#budget.spend("small");
      default:
        return this.#budget.spend("others");
    }
  }

  #spend(violation: Violation | undefined): void {
    if (violation !== undefined) throw new Overdone(violation);
  }

  #announceData(id: number, length: number): void {
    if (id === 0 || this.#isIdle(id)) throw protocolError("DATA of a stream that is not open");
    this.#receiveWindow -= length;
    // Given back at once, whoever takes it: a stream that waits must hold up no other.
    if (this.#receiveWindow < CONNECTION_WINDOW / 2) {
      this.#reply(windowFrame(0, CONNECTION_WINDOW - this.#receiveWindow));
      this.#receiveWindow = CONNECTION_WINDOW;
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      // Sent before its client knew that it is over (section 5.1), unless it did.
      if (this.#recent.wasReset(id) === false) this.#resetStream(id, ErrorCode.STREAM_CLOSED);
    } else if (stream.isComplete) this.#resetStream(id, ErrorCode.STREAM_CLOSED);
    else if (!stream.announced(length)) this.#resetStream(id, ErrorCode.FLOW_CONTROL_ERROR);
  }

  /** Of a stream that is not open any more: its client may not have known, when they are the trailers of one that was reset. */
  #takeLateHeaders(id: number): void {
    const wasReset = this.#recent.wasReset(id);
    if (wasReset === false) throw new ConnectionError(ErrorCode.STREAM_CLOSED, "HEADERS after a stream has ended");
    const mayBeForgotten = id % 2 === 1 && !this.#recent.isWhole;
    if (wasReset === undefined && !mayBeForgotten) throw protocolError(`stream ${id} cannot be opened`);
  }

  #takeTrailers(stream: Http2Stream, fields: readonly Field[] | undefined, endsStream: boolean): void {
    if (stream.isComplete) this.#resetStream(stream.id, ErrorCode.STREAM_CLOSED);
    else if (!endsStream || fields === undefined || !areTrailers(fields))
      this.#resetStream(stream.id, ErrorCode.PROTOCOL_ERROR);
    else this.#complete(stream);
  }

  #complete(stream: Http2Stream): void {
    if (!stream.complete()) this.#resetStream(stream.id, ErrorCode.PROTOCOL_ERROR);
  }

  /** `fields`: undefined for too many of them. */
  #open(id: number, fields: readonly Field[] | undefined, endsStream: boolean): void {
    const { usage, serve } = this.#options;
    this.#lastId = id;
    if (this.#isClosing) {
      this.#recent.add(id, true); // its client is told by GOAWAY that it is not served
      return;
    }
    this.#lastServed = id;
    if (this.#streams.size >= usage.limits.streamsPerConnection) {
      usage.refuse("streamsPerConnection");
      this.#refuse(id, ErrorCode.REFUSED_STREAM);
      return;
    }
    const head = fields && headOf(fields);
    if (head === undefined) {
      this.#spend(this.#budget.spend("resets"));
      this.#refuse(id, fields === undefined ? ErrorCode.ENHANCE_YOUR_CALM : ErrorCode.PROTOCOL_ERROR);
      return;
    }
    if (!usage.take("streams")) {
      this.#refuse(id, ErrorCode.REFUSED_STREAM);
      return;
    }
    const stream = new Http2Stream(id, head, this, this.#peer.initialWindow);
    this.#streams.add(stream);
    serve(stream);
    if (endsStream) this.#complete(stream);
  }

  #takeSettings(flags: number, id: number, payload: Buffer): void {
    const isAck = (flags & Flag.ACK) !== 0;
    checkFrame(id === 0, isAck ? payload.length === 0 : payload.length % 6 === 0);
    if (isAck) return;
    if (!this.#hasSettings) this.#blockSince = undefined;
    this.#hasSettings = true;
    const before = this.#peer.initialWindow;
    this.#peer.take(payload);
    this.#reply(frameOf(FrameType.SETTINGS, Flag.ACK, 0, Buffer.alloc(0)));
    const more = this.#peer.initialWindow - before;
    if (more === 0) return;
    for (const stream of this.#streams.all())
      if (!stream.widen(more)) throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large");
      else if (stream.hasMore) stream.sendOn();
  }

  #widen(id: number, bytes: number): void {
    const stream = this.#streams.get(id);
    if (id !== 0) {
      if (bytes === 0) this.#resetStream(id, ErrorCode.PROTOCOL_ERROR);
      else if (stream?.widen(bytes) === false) this.#resetStream(id, ErrorCode.FLOW_CONTROL_ERROR);
      else if (stream?.hasMore) stream.sendOn();
      return;
    }
    if (bytes === 0) throw protocolError("WINDOW_UPDATE of nothing");
    const wasEmpty = this.sendWindow <= 0;
    this.sendWindow += bytes;
    if (this.sendWindow > MAX_WINDOW_BYTES)
      throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large");
    if (wasEmpty) this.#sendOn();
  }

  /** Lets all streams send that wait, each in its turn: who could not send all of it comes after the others. */
  #sendOn(): void {
    const streams = this.#waiting;
    this.#waiting = [];
    let turn = 0;
    for (; turn < streams.length && this.sendWindow > 0 && !this.writer.isFull; turn++) {
      const stream = streams[turn];
      if (stream === undefined) continue;
      stream.isWaiting = false;
      stream.sendOn();
    }
    const rest = streams.slice(turn).filter((stream) => !stream.isClosed);
    if (rest.length > 0) this.#waiting = [...rest, ...this.#waiting];
  }

  /** Answers a frame. A client that makes the server do so and does not read it is ended. */
  #reply(bytes: Buffer<ArrayBuffer>): void {
    this.writer.send(bytes);
    if (!this.writer.isFull) return;
    this.#unread += bytes.length;
    if (this.#unread > MAX_UNREAD) throw new Overdone("unread");
  }

  /** For the fault of a client, who may not do so without end either. */
  #resetStream(id: number, code: number): void {
    this.#spend(this.#budget.spend("resets"));
    const stream = this.#streams.get(id);
    if (stream === undefined) this.#reply(resetFrame(id, code));
    else stream.reset(code);
  }

  /** Does not open a stream. */
  #refuse(id: number, code: number): void {
    this.#recent.add(id, true);
    this.#reply(resetFrame(id, code));
  }

  #isIdle(id: number): boolean {
    return id > this.#lastId || (id !== 0 && id % 2 === 0);
  }

  /** Asks a silent client whether it is there; one that does not answer is to be dropped. */
  #keepAlive(now: number): LimitName | undefined {
    const { keepaliveMs, keepaliveTimeoutMs } = this.#options.usage.limits;
    if (this.#pingedAt !== undefined && this.#heardAt < this.#pingedAt) {
      if (now - this.#pingedAt >= keepaliveTimeoutMs) return "keepaliveTimeoutMs";
    } else if (now - this.#heardAt >= keepaliveMs) {
      this.#pingedAt = now;
      this.writer.send(frameOf(FrameType.PING, 0, 0, Buffer.alloc(8))); // whatever is heard then counts
    }
    return undefined;
  }

  /** Ends it for what its client has sent. */
  #fail(error: unknown): void {
    if (error instanceof Overdone) {
      this.#options.overdone(error.kind, this.#socket.remoteAddress);
      this.#end(ErrorCode.ENHANCE_YOUR_CALM);
      return;
    }
    const isOfClient = error instanceof ConnectionError || error instanceof CompressionError;
    const { log } = this.#options;
    const fields = { address: this.#socket.remoteAddress, error };
    if (isOfClient) log.debug(fields, "HTTP/2 connection ended: its client does not keep to the protocol");
    else log.error(fields, "HTTP/2 connection failed");
    if (error instanceof CompressionError) this.#end(ErrorCode.COMPRESSION_ERROR);
    else this.#end(error instanceof ConnectionError ? error.code : ErrorCode.INTERNAL_ERROR);
  }

  /** Tells the client why, and closes the connection once it can have read that. */
  #end(code: number): void {
    this.writer.send(goawayFrame(this.#lastServed, code));
    this.#lose(code);
    this.#part(PARTING_MS);
  }

  #lose(code: number): void {
    this.#isOver = true;
    for (const stream of this.#streams.all()) stream.lose(code);
  }

  /** Closes it after its last stream, once its client has read all: for that it has as long as for any answer. */
  #settle(): void {
    if (!this.#isClosing || this.#isOver || this.#streams.size > 0) return;
    this.#isOver = true;
    this.#part(this.#options.usage.limits.responseMs);
  }

  #part(patienceMs: number): void {
    const socket = this.#socket;
    this.writer.flush();
    const timer = setTimeout(() => socket.destroy(), patienceMs);
    socket.once("close", () => clearTimeout(timer));
    socket.end();
  }
}

const protocolError = (text: string) => new ConnectionError(ErrorCode.PROTOCOL_ERROR, text);

function checkFrame(isOfStream: boolean, hasLength: boolean): void {
  if (!isOfStream) throw protocolError("a frame of a stream that it cannot be of");
  if (!hasLength) throw new ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "a frame of a length that it cannot have");
}
