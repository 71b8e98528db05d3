// A device by socket.io-client, for a test to use: `node messenger.mjs <url> <token> [transport] [msgpack]`.
//
// Each line of standard input is what to do, {id, do, name, payload}; each line of standard output is what happened:
// {heard: [name, payload, meta]}, {id, answer} or {gone: reason}. It keeps its place in every room and comes back by itself.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import * as msgpack from "socket.io-msgpack-parser";

const [url, token, transport, codec] = process.argv.slice(2);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const positions = {};

const socket = io(url, {
  ...(transport ? { transports: [transport] } : {}),
  ...(codec === "msgpack" ? { parser: msgpack } : {}),
  reconnectionDelay: 20,
  auth: (give) => give({ token, rooms: positions }),
});
socket.onAny((name, payload, meta) => {
  if (meta?.seq !== undefined) positions[meta.room] = Math.max(meta.seq, positions[meta.room] ?? 0);
  if (name === "hello") for (const [room, head] of Object.entries(payload.rooms)) positions[room] ??= head;
  say({ heard: [name, payload, meta ?? null] });
});
socket.on("disconnect", (reason) => say({ gone: reason }));
socket.on("connect_error", (error) => say({ heard: ["connect_error", { message: error.message, data: error.data }, null] }));

const deeds = {
  call: ({ name, payload }) => socket.timeout(10_000).emitWithAck(name, payload),
  // An answer comes later than that: what was asked has been done or not, and is asked again.
  hurry: ({ name, payload }) => socket.timeout(0).emitWithAck(name, payload).catch((error) => error.message),
  transport: () => socket.io.engine.transport.name,
  cut: () => socket.io.engine.transport.ws.terminate(), // as a tunnel does it: nobody says goodbye
  fetch: async ({ name }) => Buffer.from(await (await fetch(new URL(name, url))).arrayBuffer()).toString("hex"),
};
createInterface({ input: process.stdin }).on("line", async (line) => {
  const wish = JSON.parse(line);
  say({ id: wish.id, answer: (await deeds[wish.do](wish)) ?? null });
}).on("close", () => { socket.disconnect(); process.exit(0); });
