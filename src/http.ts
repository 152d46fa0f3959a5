import type { Exchange, HeaderFields } from "./exchange.ts";
import type { HttpHandler } from "./listener.ts";
import { errorText, type Log } from "./log.ts";

/** What a browser, a probe or a scraper reads at one path. */
export interface Page {
  /** HTTP status. */
  readonly status: number;
  /** With its charset where it is text. */
  readonly contentType: string;
  readonly body: string;
}

/** Pages by path, each made when it is asked for. One that throws is answered 500. */
export type Pages = Readonly<Record<string, () => Page | Promise<Page>>>;

/** A page of plain text; a line break is added. */
export const textPage = (status: number, text: string): Page => ({
  status,
  contentType: "text/plain; charset=utf-8",
  body: `${text}\n`,
});

/**
 * Answers GET and HEAD of these paths, over HTTP/1.1 and HTTP/2, with or without a query; other methods of them are 405.
 * Every other path is left to `otherwise`.
 */
export function pageHandler(pages: Pages, otherwise: HttpHandler, log: Log): HttpHandler {
  const known = new Map(Object.entries(pages)); // so that no path is a property that every object has
  return (exchange) => {
    const { method, path } = exchange;
    const make = known.get(path);
    if (make === undefined) return otherwise(exchange);
    if (method !== "GET" && method !== "HEAD")
      return send(textPage(405, "method not allowed"), exchange, { allow: "GET, HEAD" });
    void made(make).then((page) => {
      if (page instanceof Error) log.error({ path, error: page }, "page failed");
      send(page instanceof Error ? textPage(500, "internal error") : page, exchange);
    });
  };
}

/** Never rejects. */
async function made(make: () => Page | Promise<Page>): Promise<Page | Error> {
  try {
    return await make();
  } catch (error) {
    return error instanceof Error ? error : new Error(errorText(error));
  }
}

function send({ status, contentType, body }: Page, exchange: Exchange, more: HeaderFields = {}): void {
  const headers = {
    ...more,
    "content-type": contentType,
    "content-length": String(Buffer.byteLength(body)),
    "cache-control": "no-store", // it tells of now
  };
  exchange.answer({ status, headers, body: exchange.method === "HEAD" ? "" : body });
}
