import type { IncomingMessage, ServerResponse } from "node:http";
import { sleep } from "../../../src/time.ts";
import { type BodyFault, statusText } from "./fault.ts";

/** Pieces of a trickle come so often, in ms. */
const TRICKLE_MS = 20;

/** Passes a body on as it comes, as slowly as it is taken. */
export async function pass(from: IncomingMessage, to: ServerResponse): Promise<void> {
  for await (const data of from) await write(to, data);
  to.end();
}

/** Passes a body on spoiled. `fired` is called when that shows. */
export function spoil(from: IncomingMessage, to: ServerResponse, fault: BodyFault, fired: () => void): Promise<void> {
  if ("trickle" in fault) return trickle(from, to, fault.trickle, fired);
  if ("cut" in fault) return cut(from, to, fault, fired);
  if ("reorderMs" in fault) return reorder(from, to, fault.reorderMs, fired);
  if ("lateMs" in fault) return late(from, to, fault.lateMs, fired);
  if ("repeat" in fault) return repeat(from, to, fired);
  fired();
  from.destroy();
  to.end("event" in fault ? `{"type":"ERROR","object":${statusText(fault.event)}}\n` : fault.garbage);
  return Promise.resolve();
}

async function trickle(from: IncomingMessage, to: ServerResponse, perSecond: number, fired: () => void) {
  for await (const data of from) {
    let owed = 0;
    for (let at = 0; at < data.length; ) {
      await sleep(TRICKLE_MS);
      if (to.closed) return;
      fired();
      owed += (perSecond * TRICKLE_MS) / 1000;
      const count = Math.floor(owed);
      owed -= count;
      await write(to, data.subarray(at, at + count));
      at += count;
    }
  }
  to.end();
}

async function cut(
  from: IncomingMessage,
  to: ServerResponse,
  { cut: how, afterMs, afterLines = Number.POSITIVE_INFINITY }: Extract<BodyFault, { cut: string }>,
  fired: () => void,
) {
  let over = false;
  const act = (line: string) => {
    over = true;
    fired();
    if (how === "reset") to.socket?.resetAndDestroy();
    else if (how === "half") to.end(line.slice(0, line.length / 2));
    else if (how === "end") to.end();
    if (how !== "silence") from.destroy();
  };
  const timer = afterMs === undefined ? undefined : setTimeout(() => act('{"type":"MODIFIED","object":{"kin'), afterMs);
  let lines = 0;
  try {
    for await (const line of linesOf(from)) {
      if (over) continue; // nothing more is passed on
      if (lines++ >= afterLines) act(line);
      else await write(to, line);
    }
  } catch (error) {
    if (!over) throw error;
  } finally {
    clearTimeout(timer);
  }
  if (!over) to.end();
}

async function late(from: IncomingMessage, to: ServerResponse, ms: number, fired: () => void) {
  for await (const line of linesOf(from)) {
    fired();
    setTimeout(() => to.write(line), ms);
  }
  setTimeout(() => to.end(), ms);
}

async function repeat(from: IncomingMessage, to: ServerResponse, fired: () => void) {
  const told: string[] = [];
  for await (const line of linesOf(from)) {
    fired();
    told.push(line);
    const again = told.length % 5 === 0 ? (told[Math.floor(told.length / 2)] ?? "") : "";
    await write(to, line + line + again);
  }
  to.end();
}

/** Both lines go out in one piece: what is cut between them would be lost for good, and no client could know. */
async function reorder(from: IncomingMessage, to: ServerResponse, withinMs: number, fired: () => void) {
  let held: { line: string; timer: NodeJS.Timeout } | undefined;
  const release = (before = "") => {
    clearTimeout(held?.timer);
    to.write(before + (held?.line ?? ""));
    held = undefined;
  };
  for await (const line of linesOf(from)) {
    // A bookmark says that all before it was told: it stays where it is.
    if (held === undefined && !line.startsWith('{"type":"BOOKMARK"'))
      held = { line, timer: setTimeout(release, withinMs) };
    else if (held === undefined) to.write(line);
    else if (line.startsWith('{"type":"BOOKMARK"')) {
      release();
      to.write(line);
    } else {
      fired();
      release(line);
    }
  }
  if (held !== undefined) release();
  to.end();
}

/** Whole lines with their line feeds; what follows the last one is lost. */
async function* linesOf(from: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  for await (const data of from) {
    const lines = (rest + data.toString("utf8")).split(/(?<=\n)/);
    rest = lines.at(-1)?.endsWith("\n") ? "" : (lines.pop() ?? "");
    yield* lines;
  }
}

async function write(to: ServerResponse, data: Uint8Array | string): Promise<void> {
  if (data.length === 0 || to.write(data)) return;
  await new Promise<void>((resolve) => {
    const go = () => {
      to.off("drain", go);
      to.off("close", go);
      resolve();
    };
    to.once("drain", go);
    to.once("close", go);
  });
}
