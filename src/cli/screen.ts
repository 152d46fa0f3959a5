/**
 * What a full-screen program switches on in a terminal, and how that is switched off again: the alternate screen, mouse reports,
 * bracketed paste, keys in application mode (xterm's control sequences, "DEC private modes").
 */
const SWITCHES: readonly number[] = [1, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004, 47, 1047, 1049];
const CURSOR = 25;

/** Longest beginning of a sequence that is kept for the next piece of output. */
const LONGEST = 64;

/** Watches the output of a terminal's program, to be able to tidy up after one that could not do so itself. */
export class Screen {
  readonly #on = new Set<number>();
  #cursorHidden = false;
  #rest = "";

  see(data: Uint8Array): void {
    // Each byte as one character: control sequences are ASCII, and what else there is does not matter.
    const text = this.#rest + Buffer.from(data).toString("latin1");
    for (const [, modes = "", way] of text.matchAll(MODES))
      for (const mode of modes.split(";").map(Number)) {
        if (mode === CURSOR) this.#cursorHidden = way === "l";
        else if (!SWITCHES.includes(mode)) continue;
        else if (way === "h") this.#on.add(mode);
        else this.#on.delete(mode);
      }
    this.#rest = BEGUN.exec(text.slice(-LONGEST))?.[0] ?? "";
  }

  /** What to write to the terminal for all that is still switched on; empty when nothing is. */
  tidy(): string {
    // The alternate screen last: it brings the cursor back to where it was.
    const off = SWITCHES.filter((mode) => this.#on.has(mode)).map((mode) => `${CSI}?${mode}l`);
    const shown = this.#cursorHidden ? [`${CSI}?${CURSOR}h`] : [];
    return off.length + shown.length === 0 ? "" : [`${CSI}0m`, ...shown, ...off].join("");
  }
}

const ESCAPE = "\u001b";
const CSI = `${ESCAPE}[`;
const MODES = new RegExp(`${RegExp.escape(CSI)}\\?([0-9;]+)([hl])`, "g");
/** A sequence that the output stops within. */
const BEGUN = new RegExp(`${RegExp.escape(ESCAPE)}(\\[(\\?[0-9;]*)?)?$`);
