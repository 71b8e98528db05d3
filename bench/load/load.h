// The load generator's parts and what they share. One thread, one epoll, loopback only; see main.c for what it does.
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_INSTANCES = 16, MOST_PIDS = 32, MOST_CONNECTIONS = 20000, MOST_ROOMS = 200000, MOST_WINDOW = 64, MOST_PLACES = 16 };

// -- options.c: what the command line and the file of people say

typedef struct {
  char *token;        // JWT of this connection's person
  char *conversation; // where it sends and listens; "-": nowhere
  int room;           // the conversation's number, from 0, without holes
  int instance;       // which of --ports it connects to
  bool sends;
  char *resume; // where it resumes, as CONNECT has it: {"<room>":after,…}; NULL: nowhere
  int missed;   // events that it has to be told of there
} person;

typedef struct {
  int ports[MOST_INSTANCES], port_count;
  int server_pids[MOST_PIDS], server_pid_count;
  int database_pid, bus_pid; // 0: none
  person *people;
  int people_count, room_count;
  int window;      // messages a sender has in flight
  double rate;     // messages a second of all senders in turn, whatever comes back; 0: a closed loop
  bool full;       // a send is over with its ack and all its deliveries, not with its ack alone
  bool idle;       // connect and hold, send nothing
  bool resume;     // connect naming where one was, and be told what was missed; send nothing
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
  RESUMING,   // what was missed
  READY,
  DEAD,
};

// A room that is resumed: the last seq seen in it, and the one up to which it was missed.
typedef struct {
  char name[64];
  uint64_t head, until;
} place;

typedef struct {
  const person *who;
  int fd;
  enum state state;
  bool writing;                      // epoll watches for room to write
  char *unread, *unsent;             // a frame's beginning; bytes that the socket did not take
  int unread_length, unread_room, unsent_length, unsent_room;
  uint64_t head;                     // last seq seen in its conversation
  uint64_t opened_at;                // by the clock, in nanoseconds
  place *places;                     // MOST_PLACES, where it resumes
  int place_count, missing;          // missing: events that are still to come
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
  histogram resumed;       // from the first connect of all to the last event that one had missed
} tally;

enum phase { CONNECT, WARM, MEASURE, DRAIN };

extern options opts;
extern tally counts;
extern enum phase phase;

void talk_begin(connection *all);
void talk_first(void);     // a closed loop's first messages
int talk_due(void);        // at a rate: send what is due; milliseconds until the next is
void talk_text(connection *, const char *text, int length); // a websocket text frame arrived

// -- resume.c: connects that name where they were, and whether they are told of all that they missed

const char *resume_auth(connection *, char *into, int room); // the data of CONNECT
void resume_hello(connection *, const char *text, int length);
void resume_event(connection *, const char *text, int length);

uint64_t number_after(const char *text, int length, const char *key); // 0: it is not there
uint64_t now_ns(void);
_Noreturn void die(const char *why);

#endif
