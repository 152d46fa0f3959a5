import pino from "pino";

export type Log = pino.Logger;
export type LogDestination = pino.DestinationStream;

const levels = ["debug", "info", "warn", "error"] as const;

/** LOG_LEVEL as pino knows it: any case, `warning` is `warn`, and what is unknown means `info` (process.md section 1). */
export function logLevelFrom(text: string): (typeof levels)[number] {
  const name = text.trim().toLowerCase();
  return levels.find((level) => level === (name === "warning" ? "warn" : name)) ?? "info";
}

/**
 * One JSON line an event on stderr, with the keys `level`, `ts` (epoch seconds), `caller` (the module), `msg`, and `stack`
 * from error level on (process.md section 2). An `error` field is written as the texts of the error and its causes: what
 * such a text may hold is decided where the error is made, so no request, header or body is ever walked here.
 */
export function createLog({ level, stream }: { level: string; stream?: LogDestination }): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: () => `,"ts":${(Date.now() / 1000).toFixed(3)}`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: errorText },
      mixin: (fields: { error?: unknown }, levelNumber) =>
        levelNumber >= 50 && fields.error instanceof Error ? { stack: fields.error.stack } : {},
    },
    stream ?? pino.destination({ dest: 2, sync: true }),
  );
}

/** `message: message of the cause: …`, each once. */
export function errorText(error: unknown): string {
  const texts: string[] = [];
  for (let at = error; at !== undefined && texts.length < 5; at = at instanceof Error ? at.cause : undefined) {
    const text = at instanceof Error ? at.message : String(at);
    if (text !== "" && !texts.includes(text)) texts.push(text);
  }
  return texts.join(": ");
}
