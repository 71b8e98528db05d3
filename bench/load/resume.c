// Clients that come back: each names its rooms and the last seq that it has seen in each, and has to be told of all that
// followed, once and in order, before it counts as resumed.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t first_at; // when the first of all connected

const char *resume_auth(connection *c, char *into, int room) {
  if (!first_at || c->opened_at < first_at) first_at = c->opened_at;
  c->places = calloc(MOST_PLACES, sizeof *c->places);
  if (!c->places) die("memory");
  c->missing = c->who->missed;
  for (const char *at = c->who->resume; (at = strchr(at, '"'));) {
    const char *end = strchr(at + 1, '"');
    if (!end || end[1] != ':' || end - at > 60 || c->place_count == MOST_PLACES) die("what is resumed can't be read");
    place *p = &c->places[c->place_count++];
    memcpy(p->name, at + 1, (size_t)(end - at - 1));
    p->head = strtoull(end + 2, NULL, 10);
    at = end + 1;
  }
  snprintf(into, (size_t)room, ",\"rooms\":%s", c->who->resume);
  return into;
}

static void check_whole(connection *c) {
  if (c->missing) return;
  c->state = READY;
  counts.ready++;
  counts.opening--;
  histogram_add(&counts.resumed, now_ns() - first_at);
}

void resume_hello(connection *c, const char *text, int length) {
  uint64_t missed = 0;
  for (int i = 0; i < c->place_count; i++) {
    char key[72];
    snprintf(key, sizeof key, "\"%s\":", c->places[i].name);
    c->places[i].until = number_after(text, length, key);
    missed += c->places[i].until - c->places[i].head;
  }
  if (missed != (uint64_t)c->who->missed || !memmem(text, (size_t)length, "\"reset\":[]", 10)) {
    socket_fail(c, "its hello promises something else than what it has missed");
    return;
  }
  c->state = RESUMING;
  check_whole(c);
}

void resume_event(connection *c, const char *text, int length) {
  const char *where = memmem(text, (size_t)length, "},{\"room\":\"", 11);
  counts.delivered++;
  place *found = NULL;
  for (int i = 0; where && i < c->place_count; i++) {
    size_t n = strlen(c->places[i].name);
    if ((size_t)(text + length - where) > 11 + n && !memcmp(where + 11, c->places[i].name, n)) found = &c->places[i];
  }
  if (!found || c->state != RESUMING) {
    counts.strangers++;
    return;
  }
  uint64_t seq = number_after(where, (int)(text + length - where), "\"seq\":");
  if (seq <= found->head) {
    counts.duplicates++;
    return;
  }
  if (seq != found->head + 1 || seq > found->until) counts.gaps++;
  found->head = seq;
  c->missing--;
  check_whole(c);
}
