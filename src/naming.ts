/** `deadline_exceeded` of `DeadlineExceeded`, `log_streams` of `logStreams`. */
export const snakeCase = (name: string): string => name.replace(/(?!^)[A-Z]/g, "_$&").toLowerCase();
