// Judges /asyncapi.json by the official parser, and the patterns of both documents by the language that clients speak.
//
//     cd tests/docs-tools && npm ci && node check.mjs asyncapi.json openapi.json
//
// Prints what is wrong, and fails where anything is.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR_OR_WARNING = 1; // 0 and 1; what is above is advice
const [asyncapi, openapi] = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));
const wrong = [];

const { document, diagnostics } = await new Parser().parse(asyncapi);
for (const { severity, path, message } of diagnostics) {
  console.log(`${severity} ${path.join(".")}: ${message}`);
  if (severity <= ERROR_OR_WARNING) wrong.push(message);
}
if (document === undefined) wrong.push("the parser made no document of it");

function walk(value, path) {
  if (value === null || typeof value !== "object") return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "pattern" && typeof inner === "string") {
      try {
        new RegExp(inner, "u");
      } catch (error) {
        wrong.push(`${path}: ${error.message}`);
      }
    }
    walk(inner, `${path}.${key}`);
  }
}
walk(JSON.parse(asyncapi), "asyncapi");
walk(JSON.parse(openapi), "openapi");

for (const message of wrong) console.error(message);
console.log(`${document?.operations().all().length ?? 0} operations, ${document?.messages().all().length ?? 0} messages`);
process.exit(wrong.length ? 1 : 0);
