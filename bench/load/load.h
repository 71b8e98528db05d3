// The load generator's parts and what they share. One thread, one epoll, loopback only; see main.c for what it does.
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_INSTANCES = 16, MOST_PIDS = 32, MOST_CONNECTIONS = 20000, MOST_ROOMS = 20000, MOST_WINDOW = 64 };

// -- options.c: what the command line and the file of people say

typedef struct {
  char *token;        // JWT of this connection's person
  char *conversation; // where it sends and listens; "-": nowhere
  int room;           // the conversation's number, from 0, without holes
  int instance;       // which of --ports it connects to
  bool sends;
} person;

typedef struct {
  int ports[MOST_INSTANCES], port_count;
  int server_pids[MOST_PIDS], server_pid_count;
  int database_pid, bus_pid; // 0: none
  person *people;
  int people_count, room_count;
  int window;      // messages a sender has in flight
  bool full;       // a send is over with its ack and all its deliveries, not with its ack alone
  bool idle;       // connect and hold, send nothing
  int hello_rooms; // conversations that each hello has to name; -1: not looked at
  int opening;     // handshakes in flight while connecting
  int text_bytes;
  double warm_s, measured_s, settle_s, drain_s, connect_s;
} options;

void read_options(options *into, int argc, char **argv);

// -- histogram.c: log-linear, 64 steps an octave: an error below 1.6 %

enum { HISTOGRAM_STEPS = 64 * 48 };
typedef struct { uint64_t count, most, steps[HISTOGRAM_STEPS]; } histogram;

void histogram_add(histogram *, uint64_t nanoseconds);
double histogram_ms(const histogram *, double quantile);

// -- usage.c: what the processes have used so far

typedef struct {
  double servers_s, database_s, bus_s, own_s; // CPU seconds
  long servers_kb;                            // resident
} usage;

usage read_usage(const options *);

// -- socket.c: TCP and websocket frames

enum state {
  UNUSED,
  CONNECTING, // TCP
  UPGRADING,  // HTTP 101
  OPENING,    // Engine.IO's open packet
  ADMITTING,  // the ack of CONNECT
  GREETING,   // Parley's hello
  READY,
  DEAD,
};

typedef struct {
  const person *who;
  int fd;
  enum state state;
  bool writing;                      // epoll watches for room to write
  char *unread, *unsent;             // a frame's beginning; bytes that the socket did not take
  int unread_length, unread_room, unsent_length, unsent_room;
  uint64_t head;                     // last seq seen in its conversation
} connection;

void socket_open(connection *, int epoll, int port);
void socket_event(connection *, uint32_t events);
void socket_send_text(connection *, const char *text, int length);
void socket_fail(connection *, const char *why);

// -- talk.c: Engine.IO, Socket.IO and the chat's own words; counts and checks what comes

typedef struct {
  uint64_t sent, acks, delivered, expected;                 // whole run
  uint64_t duplicates, gaps, strangers, bad_acks, wrong_seq; // each has to stay 0
  int ready, opening, dead;
  histogram ack, delivery; // of messages sent while measuring
} tally;

enum phase { CONNECT, WARM, MEASURE, DRAIN };

extern options opts;
extern tally counts;
extern enum phase phase;

void talk_begin(connection *all);
void talk_send(connection *);
void talk_text(connection *, const char *text, int length); // a websocket text frame arrived

uint64_t now_ns(void);
_Noreturn void die(const char *why);

#endif
