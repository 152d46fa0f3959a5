import { inspect } from "node:util";

const HIDDEN = "[secret]";

/**
 * A text that must reach no log, argument, environment or error. However it is printed, it shows `[secret]`; only `reveal`
 * gives the text, to be called where it goes over the wire.
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}

/** Takes what is secret out of a text of somebody else's making, such as an error that quotes its request. */
export const redact = (text: string, secrets: readonly Secret[]): string =>
  secrets.reduce((left, secret) => (secret.reveal() === "" ? left : left.replaceAll(secret.reveal(), HIDDEN)), text);
