// A first conversation by socket.io-client: run it against a server and read along.
//
//     cd tests/clients && npm ci && node first_conversation.mjs http://127.0.0.1:8080 [websocket]
//
// Two people register, connect, talk; one loses the connection, misses fifty messages, comes back and has them all.
// Without a second argument the client takes its default way: polling first, then an upgrade.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { io } from "socket.io-client";

const url = process.argv[2] ?? "http://127.0.0.1:8080";
const options = process.argv[3] ? { transports: [process.argv[3]] } : {};
const MISSED = 50;
setTimeout(() => { console.error("not done within 30 seconds"); process.exit(1); }, 30_000).unref();

async function register(name) {
  const username = `${name}-${randomUUID().slice(0, 8)}`;
  const response = await fetch(`${url}/api/account/register`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username, email: `${username}@example.com`, password: "correct horse battery" }),
  });
  const answer = await response.json();
  assert.ok(answer.ok, JSON.stringify(answer));
  return answer.data;
}

// A client that keeps its place in every room, as the contract asks: by seq, never by an ack.
class Phone {
  positions = {};
  texts = [];

  constructor(account) { this.account = account; }

  async connect() {
    this.socket = io(url, {
      ...options,
      forceNew: true,
      reconnection: false,
      // A function: it is asked again at every connect, so that a reconnect resumes from where this phone is by then.
      auth: (give) => give({ token: this.account.access_token, rooms: this.positions }),
    });
    this.socket.on("connect_error", (error) => { console.error("refused:", error.message, error.data); process.exit(1); });
    this.socket.on("message:created", (message, { room, seq }) => {
      if (seq > (this.positions[room] ?? 0)) {
        this.positions[room] = seq;
        this.texts.push(message.text);
      }
    });
    [this.hello] = await once(this.socket, "hello");
  }

  async call(command, payload) {
    const answer = await this.socket.timeout(10_000).emitWithAck(command, payload);
    assert.ok(answer.ok, `${command}: ${JSON.stringify(answer.error)}`);
    return answer.data;
  }

  // The client_id makes it safe to send again.
  send(conversation_id, text) {
    return this.call("message:send", { conversation_id, client_id: randomUUID(), text });
  }

  async hears(texts) {
    while (this.texts.length < texts.length) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual(this.texts, texts);
  }
}

const amina = new Phone(await register("amina"));
const bilal = new Phone(await register("bilal"));
await amina.connect();
await bilal.connect();
console.log("both are connected; the server is", amina.hello.instance);

const { conversation_id: chat } = await amina.call("conversation:create", {
  kind: "private", user_ids: [bilal.account.user.user_id], client_id: "first",
});
const said = ["Is the bicycle still there?", "It is. Come and see it.", "كم السعر؟"];
for (const [phone, text] of [[amina, said[0]], [bilal, said[1]], [amina, said[2]]]) {
  const { seq } = await phone.send(chat, text);
  console.log(`acknowledged as number ${seq}: ${text}`);
}
await amina.hears(said);
await bilal.hears(said);

const history = await bilal.call("message:history", { conversation_id: chat });
assert.deepEqual(history.messages.map((message) => message.text), said);

bilal.socket.disconnect();
const missed = Array.from({ length: MISSED }, (_, n) => `You missed this (${n}).`);
for (const text of missed) await amina.send(chat, text);
await bilal.connect();
await bilal.hears([...said, ...missed]);
await amina.hears([...said, ...missed]);
console.log(`Bilal was away for ${MISSED} messages and has them all, in order.`);
amina.socket.disconnect();
bilal.socket.disconnect();
process.exit(0);
