import type { Invocation } from "./invocation.ts";

/** What a word on the command line stands for, for completion and help. */
export type Kind = "workload" | "file" | "path" | "command" | "shell" | "text";

/** A flag, told once: it is parsed, helped with, completed and documented by this. */
export interface Flag {
  /** Long name without dashes. */
  readonly name: string;
  /** One letter, without its dash. */
  readonly short?: string;
  /** What stands for the value in the help, such as `duration`; without it the flag is a switch. */
  readonly value?: string;
  /** What the value names. */
  readonly kind?: Kind;
  /** May be given more than once; every value counts. Otherwise the last one does. */
  readonly repeated?: boolean;
  /** The variable that is used when the flag is not given. */
  readonly env?: string;
  /** One line, beginning in lower case, without a full stop. */
  readonly help: string;
}

/** A word that is no flag. */
export interface Operand {
  /** As in the help, such as `workload`. */
  readonly name: string;
  readonly kind: Kind;
  /** May be left out. */
  readonly optional?: boolean;
  /** Any number of them. */
  readonly repeated?: boolean;
  /**
   * This operand and all words after it belong to another program: what looks like a flag among them is none of ours, and one
   * `--` before them is taken away.
   */
  readonly verbatim?: boolean;
}

/** What a person can type after `k8s-runner`. */
export interface Command {
  readonly name: string;
  /** Where the help lists it. */
  readonly group: "process" | "client" | "shell" | "hidden";
  /** One line, beginning in upper case, without a full stop. */
  readonly summary: string;
  readonly operands: readonly Operand[];
  readonly flags: readonly Flag[];
  /** Paragraphs below the usage, lines of at most 100 characters. */
  readonly details?: readonly string[];
  /** Command lines, each with what it does. */
  readonly examples?: readonly (readonly [line: string, what: string])[];
  /** Carries it out and resolves with the exit status. It loads what it needs: the table alone costs nothing. */
  readonly run: (invocation: Invocation) => Promise<number>;
}
