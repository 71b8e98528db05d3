// A client in TypeScript: it is compiled, never run. What is wrong on purpose says so; the compiler has to agree.

import { io, type Socket } from "socket.io-client";
import type {
  Answer, Auth, ClientToServerEvents, Commands, ConnectError, HttpCommand, Message, ServerToClientEvents, SocketCommand,
} from "parley";

const positions: Record<string, number> = {};
const auth: Auth = { token: "…", rooms: positions };
const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io("https://chat.example", {
  auth: (give) => give(auth satisfies Auth),
});

socket.on("hello", (hello) => {
  for (const [room, head] of Object.entries(hello.rooms)) positions[room] = head;
  const reset: string[] = hello.reset;
  return reset;
});
socket.on("message:created", (message, { room, seq, at }) => {
  positions[room] = seq;
  const text: string | null = message.text;
  const when: string = at;
  return [text, when, message.reactions];
});
socket.on("server:draining", ({ reconnect_in_ms }, meta) => {
  const wait: number = reconnect_in_ms;
  // @ts-expect-error what no log keeps has no seq
  return [wait, meta.seq];
});
socket.on("connect_error", (error) => {
  const data = (error as Error & { data?: ConnectError }).data;
  if (data?.code === "unauthenticated") socket.disconnect();
});
// @ts-expect-error there is no such push
socket.on("message:invented", () => {});

export async function send(conversation_id: string, text: string): Promise<number> {
  // Behind timeout() socket.io-client's own types know of no answer any more: say whose it is.
  const answer: Answer<"message:send"> = await socket
    .timeout(10_000)
    .emitWithAck("message:send", { conversation_id, client_id: "1", text });
  if (answer.ok) return answer.data.seq;
  switch (answer.error.code) {
    case "rate_limited":
      return -answer.error.retry_after_ms;
    case "conflict":
      return answer.error.reason === "key_reuse" ? 0 : 1;
    case "invalid":
      return Object.keys(answer.error.fields).length;
    // @ts-expect-error a command that is there is not unknown
    case "unknown_command":
      return 0;
    default:
      throw new Error(answer.error.message);
  }
}

socket.emit("account:me", {}, (answer) => {
  if (answer.ok) {
    const roles: ("buyer" | "seller" | "mentor" | "admin")[] = answer.data.roles;
    return roles;
  }
  // @ts-expect-error what failed has no data
  return answer.data;
});
// @ts-expect-error a client_id is missing
void socket.emitWithAck("message:send", { conversation_id: "…", text: "hello" });
// @ts-expect-error unknown fields are refused
void socket.emitWithAck("conversation:list", { surprise: 1 });
// @ts-expect-error it is over HTTP alone
void socket.emitWithAck("account:login", { login: "amina", password: "…" });

// The commands over HTTP, typed by the same table.
export async function post<Name extends HttpCommand>(
  name: Name, payload: Commands[Name]["payload"], token?: string,
): Promise<Answer<Name>> {
  const response = await fetch(`/api/${name.replace(":", "/")}`, {
    method: "POST",
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    body: JSON.stringify(payload),
  });
  return (await response.json()) as Answer<Name>;
}

export async function history(token: string): Promise<Message[]> {
  const answer = await post("message:history", { conversation_id: "…", limit: 20 }, token);
  // @ts-expect-error rooms are joined on a socket
  await post("room:join", { room: "…" }, token);
  return answer.ok ? answer.data.messages : [];
}

export const onTheSocket: SocketCommand = "room:join";
