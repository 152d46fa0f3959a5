import { setDefaultTimeout } from "bun:test";

// Milliseconds. What a test waits for ends it; this only keeps one that hangs from holding the run.
setDefaultTimeout(30_000);
