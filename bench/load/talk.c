// What is said on a connection, and whether what comes back is right: every message acknowledged, delivered once to each
// member of its room, and in the room's order without a gap.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IN_FLIGHT = 1 << 20 }; // slots for messages not yet complete, found by the low bits of their numbers

typedef struct {
  uint64_t sent_at, seq; // seq: as first heard of, 0 before
  connection *sender;
  int remaining; // deliveries still to come
  bool live, acked, measured;
} message;

options opts;
tally counts;
enum phase phase = CONNECT;

static message *messages;
static int *room_sizes;
static connection **senders;
static int sender_count, sender_step, next_sender;
static uint64_t due_at; // when the next message is due, at a rate
static uint32_t last_number, run;
static char padding[8192];

static int greatest_divisor(int a, int b) { return b ? greatest_divisor(b, a % b) : a; }

void talk_begin(connection *all) {
  messages = calloc(IN_FLIGHT, sizeof *messages);
  room_sizes = calloc((size_t)opts.room_count + 1, sizeof *room_sizes);
  senders = calloc((size_t)opts.people_count + 1, sizeof *senders);
  if (!messages || !room_sizes || !senders) die("memory");
  for (int i = 0; i < opts.people_count; i++) {
    all[i].who = &opts.people[i];
    room_sizes[opts.people[i].room]++;
    if (opts.people[i].sends) senders[sender_count++] = &all[i];
    counts.expected += (uint64_t)opts.people[i].missed;
  }
  for (sender_step = sender_count * 5 / 8 + 1; greatest_divisor(sender_step, sender_count) > 1;) sender_step++;
  memset(padding, 'x', sizeof padding);
  run = (uint32_t)(now_ns() ^ (uint64_t)getpid());
}

// `at`: when it should be sent. At a rate, what waits because something hangs has waited from then on.
static void talk_send(connection *c, uint64_t at) {
  char packet[MOST_WINDOW + 9000];
  uint32_t number = ++last_number;
  message *m = &messages[number % IN_FLIGHT];
  if (m->live) die("too many messages in flight");
  // The number stands behind a ~, which nothing else of the packet holds: deliveries are told apart by it.
  int n = snprintf(packet, sizeof packet,
                   "42%u[\"message:send\",{\"conversation_id\":\"%s\",\"client_id\":\"%08x-%u\",\"text\":\"~%08x %.*s\"}]",
                   number, c->who->conversation, run, number, number, opts.text_bytes > 10 ? opts.text_bytes - 10 : 0, padding);
  *m = (message){.sent_at = at, .sender = c, .remaining = room_sizes[c->who->room], .live = true, .measured = phase == MEASURE};
  counts.sent++;
  counts.expected += (uint64_t)m->remaining;
  socket_send_text(c, packet, n);
}

void talk_first(void) {
  if (opts.rate) due_at = now_ns();
  else
    for (int w = 0; w < opts.window; w++)
      for (int i = 0; i < sender_count; i++) talk_send(senders[i], now_ns());
}

int talk_due(void) {
  if ((phase != WARM && phase != MEASURE) || !sender_count) return 10;
  uint64_t now = now_ns();
  for (; due_at <= now; due_at += (uint64_t)(1e9 / opts.rate)) {
    next_sender = (next_sender + sender_step) % sender_count; // neighbours are in one room: not one after the other
    if (senders[next_sender]->state == READY) talk_send(senders[next_sender], due_at);
  }
  uint64_t left_ms = (due_at - now) / 1000000 + 1;
  return left_ms < 10 ? (int)left_ms : 10;
}

// Both the ack and a delivery tell a message's seq: they have to agree.
static void note_seq(message *m, uint64_t seq) {
  if (!m->seq) m->seq = seq;
  else if (m->seq != seq) counts.wrong_seq++;
}

// After an ack or a delivery: is the send over, and is the slot free again?
static void advance(message *m, bool was_over) {
  bool heard = m->remaining == 0, over = m->acked && (heard || !opts.full);
  if (m->acked && heard) m->live = false;
  if (over && !was_over && phase != DRAIN && !opts.rate && m->sender->state == READY) talk_send(m->sender, now_ns());
}

static bool is_over(const message *m) { return m->acked && (m->remaining == 0 || !opts.full); }

uint64_t number_after(const char *text, int length, const char *key) {
  const char *at = memmem(text, (size_t)length, key, strlen(key));
  return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void on_created(connection *c, const char *text, int length) {
  const char *mark = memchr(text, '~', (size_t)length);
  const char *place = memmem(text, (size_t)length, "},{\"room\":\"", 11); // the second argument
  counts.delivered++;
  if (!mark || mark + 9 > text + length || !place) {
    counts.strangers++;
    return;
  }
  uint32_t number = (uint32_t)strtoul((char[]){mark[1], mark[2], mark[3], mark[4], mark[5], mark[6], mark[7], mark[8], 0}, NULL, 16);
  uint64_t seq = number_after(place, (int)(text + length - place), "\"seq\":");
  if (seq <= c->head) {
    counts.duplicates++;
    return;
  }
  if (seq != c->head + 1) counts.gaps++;
  c->head = seq;
  message *m = &messages[number % IN_FLIGHT];
  if (!m->live || m->remaining <= 0 || m->sender->who->room != c->who->room) {
    counts.strangers++;
    return;
  }
  note_seq(m, seq);
  if (m->measured) histogram_add(&counts.delivery, now_ns() - m->sent_at);
  bool was_over = is_over(m);
  m->remaining--;
  advance(m, was_over);
}

static void on_ack(const char *text, int length) {
  uint32_t number = (uint32_t)strtoul(text + 2, NULL, 10);
  message *m = &messages[number % IN_FLIGHT];
  uint64_t seq = number_after(text, length, "\"seq\":");
  if (!m->live || m->acked || !memmem(text, (size_t)length, "\"ok\":true", 9) || !seq) {
    if (counts.bad_acks++ < 3) fprintf(stderr, "load: a bad ack: %.*s\n", length, text);
    return;
  }
  counts.acks++;
  note_seq(m, seq);
  if (m->measured) histogram_add(&counts.ack, now_ns() - m->sent_at);
  m->acked = true;
  advance(m, false);
}

// The hello names the rooms the server has joined the connection to, each with the seq after which it hears everything.
static void on_hello(connection *c, const char *text, int length) {
  int named = 0;
  for (const char *at = text; (at = memmem(at, (size_t)(text + length - at), "\"conversation:", 14)); at += 14) named++;
  if (opts.hello_rooms >= 0 && named != opts.hello_rooms) {
    socket_fail(c, "its hello names another number of rooms than it is in");
    return;
  }
  char key[80];
  snprintf(key, sizeof key, "\"conversation:%.40s\":", c->who->conversation);
  if (c->who->conversation[0] != '-' && !memmem(text, (size_t)length, key, strlen(key))) {
    socket_fail(c, "its hello does not name its conversation");
    return;
  }
  c->head = number_after(text, length, key);
  if (opts.resume) {
    resume_hello(c, text, length);
    return;
  }
  c->state = READY;
  counts.ready++;
  counts.opening--;
}

static bool starts(const char *text, int length, const char *with) {
  return length >= (int)strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

void talk_text(connection *c, const char *text, int length) {
  if (starts(text, length, "42[\"message:created\",")) opts.resume ? resume_event(c, text, length) : on_created(c, text, length);
  else if (starts(text, length, "43")) on_ack(text, length);
  else if (starts(text, length, "2")) socket_send_text(c, "3", 1); // a heartbeat
  else if (starts(text, length, "0") && c->state == OPENING) {
    char packet[8192], rooms[4096];
    c->state = ADMITTING;
    const char *resume = opts.resume ? resume_auth(c, rooms, sizeof rooms) : "";
    socket_send_text(c, packet, snprintf(packet, sizeof packet, "40{\"token\":\"%s\"%s}", c->who->token, resume));
  } else if (starts(text, length, "40") && c->state == ADMITTING) c->state = GREETING;
  else if (starts(text, length, "42[\"hello\",") && c->state == GREETING) on_hello(c, text, length);
  else if (starts(text, length, "44") || starts(text, length, "41")) {
    char why[300];
    snprintf(why, sizeof why, "refused, or disconnected: %.*s", length < 250 ? length : 250, text);
    socket_fail(c, why);
  }
}
