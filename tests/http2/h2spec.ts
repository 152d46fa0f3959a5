import { textPage } from "../../src/http.ts";
import { createLog } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";

/** The runner's listener with one page and no calls, for h2spec.sh. Prints its port, and serves until it is killed. */
const server = await startServer({
  address: "127.0.0.1:0",
  maxMessageBytes: 1024 * 1024,
  log: createLog({ level: "silent" }),
  routes: () => undefined,
  pages: { "/": () => textPage(200, "some content, as the suite wants it") },
});
console.log(server.address.port);
