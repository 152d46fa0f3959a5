import { expect, test } from "bun:test";
import type { Output } from "../../src/kube/channel.ts";
import { unpack } from "../../src/runner/archive.ts";
import { channelOf } from "../support/channel.ts";

// What a cluster can tell of an upload's end, and what of it is believed. Whole uploads are in the end-to-end file.
const ID = "upload";
const payload = new Uint8Array(100);
const word = (text: string): Output => ({ stream: "stdout", data: Buffer.from(`\x1e${ID}:${text}\n`) });

const told = (outputs: readonly Output[], status: number) => unpack(channelOf(outputs, status), payload, ID);

test("an upload is done when all bytes arrived and tar was content, as the script tells it", async () => {
  expect(await told([word("arrived:100"), word("exit:0")], 0)).toBeUndefined();
  expect(await told([word("exit:0")], 0)).toBeUndefined(); // no tools to count
  expect(await told([word("arrived:99"), word("exit:0")], 0)).toBe("not all of 100 bytes arrived, 99 for certain");
  expect(await told([word("arrived:100"), word("exit:2")], 0)).toBe("command terminated with exit code 2");
});

test("a cluster's success without the script's word proves nothing", async () => {
  for (const outputs of [[], [word("arrived:100")]]) expect(await told(outputs, 0)).toContain("not all output");
});

test("without a shell the status is all there is", async () => {
  expect(await unpack(channelOf([], 0), payload, undefined)).toBeUndefined();
  expect(await unpack(channelOf([], 2), payload, undefined)).toBe("command terminated with exit code 2");
});

test("a large payload's memory is given back once it is unpacked, and only then", async () => {
  const left = async (outputs: readonly Output[], status: number, id: string | undefined) => {
    const large = new Uint8Array(128 * 1024);
    await unpack(channelOf(outputs, status), large, id);
    return large.length;
  };
  expect(await left([word("exit:0")], 0, ID)).toBe(0);
  expect(await left([], 0, undefined)).toBe(0);
  for (const outputs of [[], [word("exit:2")], [word("arrived:7"), word("exit:0")]])
    expect(await left(outputs, 0, ID)).toBe(128 * 1024);
  expect(await left([], 2, undefined)).toBe(128 * 1024);
  const large = new Uint8Array(128 * 1024);
  const cut = Object.assign(channelOf([word("exit:0")], 0), { write: () => Promise.reject(new Error("cut")) });
  expect(await unpack(cut, large, ID)).toEqual(new Error("cut"));
  expect(large.length).toBe(128 * 1024);
});
