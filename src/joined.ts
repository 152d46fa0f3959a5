import type { Socket } from "node:net";

/** Longer writes go on as they are: a copy of them costs more than a system call. In bytes. */
const LONG_BYTES = 16 * 1024;

/** So many wait at most: of many answers, the client can take the first while the last are made. */
const MOST = 6;

/**
 * A connection as an HTTP/2 session is to see it: the short writes of one turn of the event loop leave as one. node:http2 of
 * Bun 1.4.5 flushes at the end of every stream, and that system call took most of the time of a short call when many come at
 * once. A session writes past `write` to what it finds as `_handle`, so it finds nothing there that it could write to (and not
 * undefined, on which it lets every write wait for the next turn). Were that to change, writes would go out one by one again.
 */
export function joined(socket: Socket): Socket {
  let waiting: Uint8Array[] = [];
  const send = (): void => {
    if (waiting.length === 0) return;
    const [first = new Uint8Array(), ...rest] = waiting;
    waiting = [];
    if (socket.writable) socket.write(rest.length === 0 ? first : Buffer.concat([first, ...rest]));
  };
  // The next tick comes when no promise can go on any more, and so after the answers of all requests that came together.
  const sendLater = (): void => process.nextTick(send);
  const write = (bytes: Uint8Array, ...rest: never[]): boolean => {
    if (bytes.length >= LONG_BYTES || rest.length > 0) {
      send();
      return socket.write(bytes, ...rest);
    }
    if (waiting.length === 0) queueMicrotask(sendLater);
    waiting.push(bytes);
    if (waiting.length >= MOST) send();
    return !socket.writableNeedDrain;
  };
  const own = new Map<string | symbol, unknown>([
    ["_handle", {}],
    ["write", write],
  ]);
  for (const name of ["end", "destroy", "destroySoon"] as const)
    own.set(name, (...args: never[]) => {
      send();
      return Reflect.apply<Socket, never[], unknown>(socket[name], socket, args);
    });
  return new Proxy(socket, {
    get(_, name) {
      if (own.has(name)) return own.get(name);
      const value: unknown = Reflect.get(socket, name);
      return typeof value === "function" ? value.bind(socket) : value; // it has private fields, which a proxy has not
    },
    set: (_, name, value) => Reflect.set(socket, name, value),
  });
}
