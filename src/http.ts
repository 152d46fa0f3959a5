import type { HttpHandler, HttpRequest, HttpResponse } from "./listener.ts";
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
  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const make = known.get(path);
    if (make === undefined) return otherwise(request, response);
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return send(textPage(405, "method not allowed"), request, response);
    }
    void made(make).then((page) => {
      if (page instanceof Error) log.error({ path, error: page }, "page failed");
      send(page instanceof Error ? textPage(500, "internal error") : page, request, response);
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

function send({ status, contentType, body }: Page, request: HttpRequest, response: HttpResponse): void {
  response.statusCode = status;
  response.setHeader("content-type", contentType);
  response.setHeader("content-length", Buffer.byteLength(body));
  response.setHeader("cache-control", "no-store"); // it tells of now
  // A request of unknown length may have no end, and its HTTP/1.1 client wait for ours until the connection closes.
  if (request.headers["transfer-encoding"] !== undefined) response.setHeader("connection", "close");
  response.end(request.method === "HEAD" ? "" : body);
  if (!("stream" in request)) request.resume(); // what still comes has to make way for the next request
}
