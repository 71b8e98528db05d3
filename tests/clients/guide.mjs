// The program of docs/clients.md at work: `node guide.mjs <url> <compiled guide>`, run by tests/journeys/test_guide.py.
//
// It says "drain" on standard output and waits for the server to be another one; whoever runs it sees to that.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

const [url, program] = process.argv.slice(2);
const guide = await import(program);
const PATIENCE_MS = 20_000;
setTimeout(() => { console.error("not done within 50 seconds"); process.exit(1); }, 50_000).unref();
// What the page leaves to fail in the background must not fail silently here.
process.on("unhandledRejection", (error) => { console.error("unhandled", error); process.exit(1); });

async function until(what, seen) {
  const ends = Date.now() + PATIENCE_MS;
  for (let found; ; await guide.pause(5)) {
    if ((found = await seen())) return found;
    if (Date.now() > ends) throw new Error(`never: ${what}`);
  }
}

const PASSWORD = "correct horse battery";
const credentials = (name) => ({ username: `${name}-${randomUUID().slice(0, 8)}`, password: PASSWORD });
async function phoneOf(name) {
  const { username, password } = credentials(name);
  const account = await guide.post(url, "account:register", { username, email: `${username}@example.com`, password });
  const phone = new guide.Phone(url, new guide.Kept(account));
  guide.connect(phone);
  await until(`${name}'s hello`, () => phone.greeted);
  return phone;
}

const id = (phone) => phone.kept.account.user.user_id;
const texts = (phone, chat) => guide.shown(phone, chat).map((message) => message.text);
const hears = (phone, chat, count) => until(`${count} messages`, () => texts(phone, chat).length >= count);
// As a tunnel does it: nobody says goodbye.
const cut = (phone) => phone.socket.io.engine.transport.ws.terminate();
const back = async (phone) => {
  await until("the cut is noticed", () => !phone.greeted);
  phone.attempts = 0;
  await until("the phone is back", () => phone.greeted);
};

const amina = await phoneOf("amina");
const bilal = await phoneOf("bilal");
assert.ok(Math.abs(amina.offset_ms) < 60_000);
const { conversation_id: chat } = await guide.call(amina, "conversation:create", {
  kind: "private", user_ids: [id(bilal)], client_id: "the chat",
});
await until("the chat is Bilal's too", () => bilal.kept.positions.has(`conversation:${chat}`));
await guide.open(amina, chat);
await guide.open(bilal, chat);

// They talk.
guide.write(amina, chat, "Is the bicycle still there?");
await hears(bilal, chat, 1);
guide.write(bilal, chat, "It is.");
await hears(amina, chat, 2);
const said = ["Is the bicycle still there?", "It is."];
console.log("they talk");

// Bilal is cut off, misses twenty messages, and writes two meanwhile.
cut(bilal);
await until("the cut is noticed", () => !bilal.greeted);
for (let n = 0; n < 20; n++) guide.write(amina, chat, `missed ${n}`);
await until("Amina's outbox is empty", () => amina.kept.outbox.length === 0);
guide.write(bilal, chat, "written in a tunnel");
guide.write(bilal, chat, "and another");
assert.equal(bilal.kept.outbox.length, 2);
said.push(...Array.from({ length: 20 }, (_, n) => `missed ${n}`), "written in a tunnel", "and another");
await hears(bilal, chat, said.length);
await hears(amina, chat, said.length);
for (const phone of [amina, bilal]) assert.deepEqual(texts(phone, chat), said);
assert.equal(bilal.kept.outbox.length, 0);
console.log("nothing is missing after a tunnel");

// Amina's connection is cut while her messages are under way: each arrives once, in her order.
for (let n = 0; n < 12; n++) {
  guide.write(amina, chat, `under way ${n}`);
  said.push(`under way ${n}`);
  if (n % 3 === 0) {
    if (n % 2) await new Promise(setImmediate);
    cut(amina);
    await back(amina);
  }
}
await hears(bilal, chat, said.length);
await hears(amina, chat, said.length);
await until("Amina's outbox is empty", () => amina.kept.outbox.length === 0);
const { messages } = await guide.post(url, "message:history", { conversation_id: chat, limit: 200 }, bilal.kept.account.access_token);
assert.deepEqual(messages.map((message) => message.text), said);
for (const phone of [amina, bilal]) assert.deepEqual(texts(phone, chat), said);
console.log("each message was stored once, in order");

// A hole: Bilal's app loses three pushes.
const onevent = bilal.socket.onevent;
let lost = 0;
bilal.socket.onevent = function (packet) {
  if (packet.data[0] === "message:created" && lost < 3) return void lost++;
  onevent.call(this, packet);
};
for (let n = 0; n < 6; n++) { guide.write(amina, chat, `hole ${n}`); said.push(`hole ${n}`); }
await hears(bilal, chat, said.length);
assert.equal(lost, 3);
assert.deepEqual(texts(bilal, chat), said);
bilal.socket.onevent = onevent;
console.log("a hole was filled");

// The epoch is another one: everything is loaded afresh.
bilal.kept.epoch = randomUUID();
cut(bilal);
await back(bilal);
assert.ok(bilal.kept.stale.has(`conversation:${chat}`));
assert.deepEqual(texts(bilal, chat), []);
await guide.list(bilal);
await guide.open(bilal, chat);
assert.deepEqual(texts(bilal, chat), said);
assert.equal(bilal.kept.conversations.get(chat).participant_count, 2);
assert.equal(bilal.kept.stale.size, 0);
assert.equal(await guide.older(bilal, chat), false);
console.log("a reset was loaded afresh");

// One client_id is one message.
const first = guide.shown(amina, chat).find((message) => message.sender_id === id(amina));
amina.kept.outbox.push({ conversation_id: chat, client_id: first.client_id, text: "something else" });
await guide.flush(amina);
assert.deepEqual(amina.kept.failed.map(({ error }) => [error.code, error.reason]), [["conflict", "key_reuse"]]);
console.log("a client_id is not used twice");

// Typing, presence, receipts.
await guide.watch(amina, [id(bilal)]);
assert.equal(amina.presences.get(id(bilal)).state, "online");
guide.type(bilal, chat);
guide.type(bilal, chat);
await until("Amina sees him type", () => amina.typing.get(chat)?.length === 1);
await guide.read(bilal, chat);
assert.equal(bilal.kept.marks.size, 0);
const mark = await until("Amina's ticks turn blue", () => amina.receipts.get(`${chat} ${id(bilal)}`));
assert.equal(mark.read_seq, guide.shown(amina, chat).at(-1).seq);
await until("his list says so", () => bilal.kept.conversations.get(chat).unread_count === 0);
guide.write(bilal, chat, "typed");
said.push("typed");
await until("he types no more", () => amina.typing.get(chat)?.length === 0);
console.log("typing, presence, receipts");

// An attachment, each step twice, and search.
const png = new Blob([Buffer.from(
  "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082",
  "hex",
)], { type: "image/png" });
const attachment_id = await guide.attach(amina, png, "bicycle.png", "the picture");
assert.equal(await guide.attach(amina, png, "bicycle.png", "the picture"), attachment_id);
guide.write(amina, chat, "صورة الدراجة", [attachment_id]);
said.push("صورة الدراجة");
await hears(bilal, chat, said.length);
const [picture] = guide.shown(bilal, chat).at(-1).attachments;
const downloaded = await guide.download(bilal, picture.attachment_id);
assert.deepEqual(await downloaded.arrayBuffer(), await png.arrayBuffer());
const [found, next] = await guide.search(bilal, "الدراجة");
assert.deepEqual([found.map((message) => message.text), next], [["صورة الدراجة"], null]);
console.log("an attachment, and search");

// The token is renewed under the living socket.
const before = [amina.kept.account.access_token, amina.socket.id];
const session = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp;
await until("a fresh token", () => amina.kept.account.access_token !== before[0]);
assert.ok(session(amina.kept.account.access_token) > session(before[0]));
await guide.call(amina, "account:me", {});
assert.equal(amina.socket.id, before[1]);
console.log("the token was renewed");

// After a long sleep the token is over, and a phone that believes its clock does not know.
bilal.kept.account = { ...bilal.kept.account, access_token: "over", expires_at: "2999-01-01T00:00:00.000Z" };
cut(bilal);
await back(bilal);
assert.notEqual(bilal.kept.account.access_token, "over");
bilal.kept.account = { ...bilal.kept.account, access_token: "over", expires_at: "2020-01-01T00:00:00.000Z" };
cut(bilal);
await back(bilal);
assert.notEqual(bilal.kept.account.access_token, "over");
console.log("a token that was over was refreshed");

// Background, foreground.
guide.write(bilal, chat, "last words");
said.push("last words");
await guide.toBackground(bilal);
assert.equal(bilal.kept.outbox.length, 0);
guide.write(amina, chat, "are you there?");
said.push("are you there?");
await until("Amina's outbox is empty", () => amina.kept.outbox.length === 0);
assert.equal(bilal.socket.connected, false);
guide.toForeground(bilal);
await hears(bilal, chat, said.length);
console.log("background, foreground");

// The server is replaced by another one.
const ends = new Promise((done) => amina.socket.once("server:draining", done));
console.log("drain");
const { reconnect_in_ms } = await ends;
assert.ok(reconnect_in_ms >= 0);
guide.write(amina, chat, "while nobody serves");
said.push("while nobody serves");
for (const phone of [amina, bilal]) await until("the phone is back", () => phone.greeted && phone.socket.connected);
await hears(bilal, chat, said.length);
await hears(amina, chat, said.length);
for (const phone of [amina, bilal]) assert.deepEqual(texts(phone, chat), said);
console.log("another server, and nothing is missing");

// Another device of Bilal's signs his phone out: the server ends the socket, and nothing is tried for ever.
const { user } = bilal.kept.account;
const laptop = await guide.post(url, "account:login", { login: user.username, password: PASSWORD });
const { sessions } = await guide.post(url, "session:list", {}, laptop.access_token);
const { session_id } = sessions.find(({ current }) => !current);
const reason = new Promise((done) => bilal.socket.once("disconnect", done));
await guide.post(url, "session:revoke", { session_id }, laptop.access_token);
assert.equal(await reason, "io server disconnect");
await until("his phone is signed out", () => bilal.signedOut);
assert.equal(bilal.socket.connected, false);
console.log("signed out");

guide.disconnect(amina);
guide.disconnect(bilal);
console.log("the guide holds");
process.exit(0);
