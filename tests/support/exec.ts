import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type ExecError,
  type ExecExit,
  ExecExitReasonSchema,
  type ExecRequestSchema,
  type ExecResponse,
  type ExecStartRequestSchema,
} from "../../src/gen/agynio/api/runner/v1/runner_pb.ts";
import type { RunnerClient } from "./runner.ts";

export type ExecStart = MessageInitShape<typeof ExecStartRequestSchema>;
type Message = MessageInitShape<typeof ExecRequestSchema>;
type Event = ExecResponse["event"];

/** What an execution showed, from its first event to the end of the stream. */
export interface ExecResult {
  /** The kinds of all events in order, runs of the same output stream told once. */
  readonly kinds: string[];
  readonly executionId: string;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly exit: ExecExit | undefined;
  readonly errors: ExecError[];
}

/** One Exec call as a client makes it: messages go out when sent, events come in when asked for. */
export class ExecSession implements AsyncDisposable {
  readonly #outbox = new Outbox<Message>();
  readonly #abort = new AbortController();
  readonly #events: AsyncIterator<ExecResponse>;
  readonly #seen: Event[] = [];

  constructor(client: RunnerClient, start?: ExecStart) {
    if (start !== undefined) this.send({ msg: { case: "start", value: start } });
    this.#events = client.exec(this.#outbox, { signal: this.#abort.signal })[Symbol.asyncIterator]();
  }

  send(message: Message): void {
    this.#outbox.push(message);
  }

  start(start: ExecStart): void {
    this.send({ msg: { case: "start", value: start } });
  }

  stdin(data: string | Uint8Array): void {
    this.send({ msg: { case: "stdin", value: { data: bytes(data) } } });
  }

  eof(): void {
    this.send({ msg: { case: "stdin", value: { eof: true } } });
  }

  resize(cols: number, rows: number): void {
    this.send({ msg: { case: "resize", value: { cols, rows } } });
  }

  halfClose(): void {
    this.#outbox.close();
  }

  /** Resets the RPC, as a client does that goes away. */
  reset(): void {
    this.#abort.abort();
  }

  /** The next event; undefined at the end of the stream. Throws when the RPC ends otherwise than OK. */
  async next(): Promise<Event | undefined> {
    const { done, value } = await this.#events.next();
    if (done) return undefined;
    this.#seen.push(value.event);
    return value.event;
  }

  /** The execution's id, from the first event; throws when that is another. */
  async started(): Promise<string> {
    const event = await this.next();
    if (event?.case !== "started") throw new Error(`expected started, got ${JSON.stringify(event?.value ?? null)}`);
    return event.value.executionId;
  }

  /** Everything that stdout said so far, as soon as `text` is part of it; throws when the stream ends before. */
  async untilOutput(text: string): Promise<string> {
    for (;;) {
      const output = decode(outputOf(this.#seen, "stdout"));
      if (output.includes(text)) return output;
      if ((await this.next()) === undefined)
        throw new Error(`${JSON.stringify(text)} never came: ${JSON.stringify(output)}`);
    }
  }

  /** Reads to the end of the stream, and checks what holds for every execution (runner-api.md 6.16.2, 6.16.5). */
  async result(): Promise<ExecResult> {
    while ((await this.next()) !== undefined);
    const seen = this.#seen;
    requireLawful(seen);
    return {
      kinds: seen.map((event) => String(event.case)).filter((kind, index, all) => kind !== all[index - 1]),
      executionId: seen.find((event) => event.case === "started")?.value.executionId ?? "",
      stdout: outputOf(seen, "stdout"),
      stderr: outputOf(seen, "stderr"),
      exit: seen.find((event) => event.case === "exit")?.value,
      errors: seen.flatMap((event) => (event.case === "error" ? [event.value] : [])),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#outbox.close();
    this.#abort.abort();
  }
}

/** Runs one command to its end. `stdin` is sent whole and then ended; without it stdin stays open. */
export async function exec(client: RunnerClient, start: ExecStart, stdin?: string | Uint8Array): Promise<ExecResult> {
  await using session = new ExecSession(client, start);
  if (stdin !== undefined) {
    for (const piece of pieces(bytes(stdin))) session.stdin(piece);
    session.eof();
  }
  return await session.result();
}

/** What most tests look at: how it ended, and the output as text. */
export function summary({ exit, stdout, stderr, errors }: ExecResult) {
  return {
    reason: exit ? ExecExitReasonSchema.value[exit.reason]?.localName : errors.map(({ code }) => code).join(),
    exitCode: exit?.exitCode,
    stdout: decode(stdout),
    stderr: decode(stderr),
  };
}

export const decode = (data: Uint8Array): string => new TextDecoder().decode(data);
export const bytes = (data: string | Uint8Array): Uint8Array =>
  typeof data === "string" ? new TextEncoder().encode(data) : data;

/** Messages of at most 64 KiB: what clients send. */
function* pieces(data: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < data.length; at += 65_536) yield data.subarray(at, at + 65_536);
}

function outputOf(events: readonly Event[], stream: "stdout" | "stderr"): Uint8Array {
  return Buffer.concat(events.flatMap((event) => (event.case === stream ? [event.value.data] : [])));
}

function requireLawful(events: readonly Event[]): void {
  const fault = (text: string) => new Error(`${text}: ${events.map((event) => event.case).join(" ")}`);
  if (events.some((event) => event.case === undefined)) throw fault("an event of no kind");
  for (const stream of ["stdout", "stderr"] as const) {
    const outputs = events.flatMap((event) => (event.case === stream ? [event.value] : []));
    if (outputs.some(({ seq }, index) => seq !== BigInt(index + 1))) throw fault(`${stream}: seq has a gap`);
    if (outputs.some(({ data }) => data.length === 0)) throw fault(`${stream}: empty data`);
    if (outputs.some(({ ts }) => ts === undefined)) throw fault(`${stream}: no time`);
  }
  const started = events.filter((event) => event.case === "started").length;
  const exits = events.flatMap((event) => (event.case === "exit" ? [event] : []));
  if (started !== exits.length || started > 1) throw fault(`${started} started and ${exits.length} exit`);
  if (started === 1 && (events[0]?.case !== "started" || events.at(-1) !== exits[0])) throw fault("out of order");
  const first = events[0];
  if (first?.case === "started" && first.value.executionId !== exits[0]?.value.executionId) throw fault("another id");
  if (exits[0] && exits[0].value.finishedAt === undefined) throw fault("exit without its time");
}

/** A queue with one reader; close() ends it after what was pushed before. */
class Outbox<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  #closed = false;
  #wake: () => void = () => {};

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) yield item;
      else if (this.#closed) return;
      else {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
    }
  }
}
