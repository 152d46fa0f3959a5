import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import packageJson from "../../package.json";
import { ENGINE } from "../support/process.ts";

/** What can be told of the image without building it; ../chart/install.sh builds and runs it. */

const lines = readFileSync("Containerfile", "utf8")
  .replaceAll(/^#.*\n/gm, "")
  .replaceAll(/\\\n/g, "")
  .split("\n")
  .filter((line) => line !== "");
const of = (instruction: string): string[] =>
  lines.filter((line) => line.startsWith(`${instruction} `)).map((line) => line.slice(instruction.length + 1));

test("every base is pinned by exact tag or digest, and is one of the named ones", () => {
  const pins = of("ARG").filter((argument) => argument.includes("_IMAGE="));
  expect(pins.length).toBe(3);
  for (const pin of pins) expect(pin).toMatch(/:[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z]+)?$|@sha256:[0-9a-f]{64}$/);
  for (const from of of("FROM"))
    expect(from).toMatch(/^(--platform=\$BUILDPLATFORM \$\{[A-Z]+_IMAGE\} AS [a-z]+|scratch AS runner|runner)$/);
});

test("the Bun that builds is the one of the lock file", () => {
  const pin = of("ARG").find((argument) => argument.startsWith("BUN_IMAGE="));
  expect(pin).toStartWith(`BUN_IMAGE=docker.io/oven/bun:${packageJson.devDependencies.bun}`);
  expect(lines.some((line) => line.includes("bun install --frozen-lockfile"))).toBe(true);
});

test("it runs as a number, one program, in /app, and declares no port", () => {
  expect(of("USER")).toEqual(["65532:65532"]);
  expect(of("ENTRYPOINT")).toEqual(['["/app/k8s-runner"]']);
  expect(of("WORKDIR").at(-1)).toBe("/app");
  for (const instruction of ["EXPOSE", "CMD", "ADD", "HEALTHCHECK"]) expect(of(instruction)).toEqual([]);
});

test("the engine is set in the image as where memory and speed are measured, and as in `bun run start`", () => {
  const settings = Object.entries(ENGINE).map((setting) => setting.join("="));
  expect(of("ENV").flatMap((line) => line.split(" "))).toEqual(expect.arrayContaining(settings));
  expect(packageJson.scripts.start).toStartWith(`${settings.join(" ")} bun `);
  expect(readFileSync("bench/run.sh", "utf8")).toContain(`export ${settings.join(" ")} `);
});

test("what the build copies is let through, and nothing else", () => {
  const copied = of("COPY")
    .filter((copy) => !copy.startsWith("--from"))
    .flatMap((copy) => copy.split(" ").slice(0, -1))
    .map((path) => path.split("/")[0] ?? "");
  const letThrough = readFileSync(".dockerignore", "utf8")
    .split("\n")
    .filter((line) => line.startsWith("!"))
    .map((line) => line.slice(1));
  expect(readFileSync(".dockerignore", "utf8")).toContain("\n*\n");
  expect(letThrough.sort()).toEqual([...new Set(copied)].sort());
});
