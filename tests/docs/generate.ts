import { configuration } from "./configuration.ts";
import { errors } from "./errors.ts";
import { rpcReference } from "./rpc.ts";

/** The documents that are made from the code, each by its path below docs/: `bun run docs` writes them. */
export const generated: Readonly<Record<string, () => string>> = {
  "configuration.md": configuration,
  "errors.md": errors,
  "reference/rpc.md": rpcReference,
};

export const DOCS = `${import.meta.dir}/../../docs`;
const NOTE = "<!-- Made by `bun run docs`: what is changed here is lost. -->";

export const contentOf = (make: () => string): string => `${NOTE}\n\n${make()}`;

if (import.meta.main)
  for (const [path, make] of Object.entries(generated)) await Bun.write(`${DOCS}/${path}`, contentOf(make));
