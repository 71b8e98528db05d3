// A load generator for Parley and its Node.js peers: opens the connections of a file of people, sends `message:send` in a
// closed loop or at a rate, checks every ack and delivery, and prints one line of JSON: rates, latencies, and the CPU that the servers and
// PostgreSQL used meanwhile. Exit code 0: all was right; 4: something was lost, doubled or out of order; else it did not run.
//
// An independent program, and in C: on one core it has to be several times faster than what it measures.
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  uint64_t at, acks, delivered;
  usage used;
} moment;

static int epoll;
static connection *connections;

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void die(const char *why) {
  fprintf(stderr, "load: %s%s%s\n", why, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(3);
}

static void turn(int wait_ms) {
  static struct epoll_event events[1024];
  int n = epoll_wait(epoll, events, 1024, wait_ms);
  for (int i = 0; i < n; i++) socket_event(events[i].data.ptr, events[i].events);
}

static void turn_for(double seconds) {
  for (uint64_t end = now_ns() + (uint64_t)(seconds * 1e9); now_ns() < end;) turn(opts.rate ? talk_due() : 10);
}

static moment take(void) { return (moment){now_ns(), counts.acks, counts.delivered, read_usage(&opts)}; }

static double since(const moment *a, const moment *b) { return (double)(b->at - a->at) / 1e9; }

static void allow_descriptors(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  rlim_t wanted = (rlim_t)opts.people_count + 64;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  if (setrlimit(RLIMIT_NOFILE, &limit)) die("too few file descriptors: raise ulimit -n");
}

static void connect_all(void) {
  uint64_t deadline = now_ns() + (uint64_t)(opts.connect_s * 1e9);
  for (int next = 0; counts.ready < opts.people_count;) {
    for (; next < opts.people_count && counts.opening < opts.opening; next++, counts.opening++)
      socket_open(&connections[next], epoll, opts.ports[opts.people[next].instance]);
    turn(1000);
    errno = 0;
    if (counts.dead) die("a connection failed while connecting");
    if (now_ns() > deadline) {
      fprintf(stderr, "load: %d of %d are ready; %lu duplicates, %lu gaps\n", counts.ready, opts.people_count, counts.duplicates, counts.gaps);
      die("not everybody was connected in time");
    }
  }
}

static void drain(void) {
  uint64_t deadline = now_ns() + (uint64_t)(opts.drain_s * 1e9);
  while ((counts.acks < counts.sent || counts.delivered < counts.expected) && now_ns() < deadline) turn(10);
  turn_for(0.1); // what comes now is one too many
}

static void print_connects(const moment *a, const moment *b) {
  double n = opts.people_count;
  printf("\"connections\":%d,\"connect_s\":%.3f,\"connects_per_s\":%.0f,\"cpu_us_per_connect\":%.1f,\"database_us_per_connect\":%.1f",
         opts.people_count, since(a, b), n / since(a, b), (b->used.servers_s - a->used.servers_s) * 1e6 / n,
         (b->used.database_s - a->used.database_s) * 1e6 / n);
}

static void print_idle(const moment *before, const moment *a, const moment *b) {
  printf(",\"rss_before_kb\":%ld,\"rss_after_kb\":%ld,\"rss_kb_per_connection\":%.2f,\"idle_cpu_percent\":%.2f",
         before->used.servers_kb, b->used.servers_kb, (double)(b->used.servers_kb - before->used.servers_kb) / opts.people_count,
         (b->used.servers_s - a->used.servers_s) / since(a, b) * 100);
}

static void print_latency(const char *name, const histogram *h) {
  printf(",\"%s_p50_ms\":%.3f,\"%s_p95_ms\":%.3f,\"%s_p99_ms\":%.3f", name, histogram_ms(h, 0.5), name, histogram_ms(h, 0.95), name,
         histogram_ms(h, 0.99));
}

static void print_talk(const moment *a, const moment *b) {
  double seconds = since(a, b), sends = (double)(b->acks - a->acks), deliveries = (double)(b->delivered - a->delivered);
  double servers_us = (b->used.servers_s - a->used.servers_s) * 1e6, database_us = (b->used.database_s - a->used.database_s) * 1e6;
  double bus_us = (b->used.bus_s - a->used.bus_s) * 1e6;
  if (sends < 1) sends = 1;
  if (deliveries < 1) deliveries = 1;
  printf(",\"seconds\":%.2f,\"sends_per_s\":%.2f,\"deliveries_per_s\":%.0f,\"cpu_us_per_send\":%.2f,\"cpu_us_per_delivery\":%.3f",
         seconds, sends / seconds, deliveries / seconds, servers_us / sends, servers_us / deliveries);
  printf(",\"database_us_per_send\":%.2f,\"bus_us_per_send\":%.2f,\"server_cpu_percent\":%.1f,\"load_cpu_percent\":%.1f",
         database_us / sends, bus_us / sends, servers_us / seconds / 1e4, (b->used.own_s - a->used.own_s) / seconds * 100);
  print_latency("ack", &counts.ack);
  print_latency("delivery", &counts.delivery);
}

static void print_resumed(void) { print_latency("resumed", &counts.resumed); }

static void print_checks(bool ok) {
  printf(",\"ok\":%s,\"sent\":%lu,\"acks\":%lu,\"expected\":%lu,\"delivered\":%lu,\"duplicates\":%lu,\"gaps\":%lu,\"strangers\":%lu,"
         "\"bad_acks\":%lu,\"wrong_seq\":%lu,\"dead\":%d}\n",
         ok ? "true" : "false", counts.sent, counts.acks, counts.expected, counts.delivered, counts.duplicates, counts.gaps, counts.strangers,
         counts.bad_acks, counts.wrong_seq, counts.dead);
}

int main(int argc, char **argv) {
  read_options(&opts, argc, argv);
  // Whatever hangs, this ends.
  alarm((unsigned)(opts.connect_s + opts.settle_s + opts.warm_s + opts.measured_s + opts.drain_s + 30));
  allow_descriptors();
  epoll = epoll_create1(0);
  connections = calloc((size_t)opts.people_count + 1, sizeof *connections);
  if (epoll < 0 || !connections) die("memory");
  talk_begin(connections);
  moment began = take();
  connect_all();
  moment connected = take();
  turn_for(opts.settle_s);
  printf("{");
  print_connects(&began, &connected);
  if (opts.idle) {
    moment a = take();
    turn_for(opts.measured_s);
    moment b = take();
    print_idle(&began, &a, &b);
    if (opts.resume) print_resumed();
  } else {
    phase = WARM;
    talk_first();
    turn_for(opts.warm_s);
    phase = MEASURE;
    moment a = take();
    turn_for(opts.measured_s);
    moment b = take();
    phase = DRAIN;
    drain();
    print_talk(&a, &b);
  }
  bool ok = counts.acks == counts.sent && counts.delivered == counts.expected && !counts.duplicates && !counts.gaps && !counts.strangers &&
            !counts.bad_acks && !counts.wrong_seq && !counts.dead;
  print_checks(ok);
  return ok ? 0 : 4;
}
