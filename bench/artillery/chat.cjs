// What chat.yml cannot say by itself: who a person's neighbour is, and a client_id for every message.
const { randomUUID } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const tokens = readFileSync(join(__dirname, "tokens.txt"), "utf8")
  .split("\n")
  .map((line) => line.trim())
  .filter((line) => line && !line.startsWith("#"));

// The holder of a token, as its second part says; the server alone need verify it.
const holder = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;

function findNeighbour(context, events, done) {
  const place = tokens.indexOf(context.vars.token);
  context.vars.neighbour = holder(tokens[place ^ 1]);
  return nameMessage(context, events, done);
}

function nameMessage(context, events, done) {
  context.vars.client_id = randomUUID();
  return done();
}

module.exports = { findNeighbour, nameMessage };
