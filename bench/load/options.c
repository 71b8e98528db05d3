#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void usage_and_exit(void) {
  fprintf(stderr,
          "load --people FILE --ports P[,P…] [options]; prints one line of JSON\n"
          "  FILE: a line a connection: token conversation_id room_number sends(0|1) instance_number,\n"
          "        with --resume also: the rooms of CONNECT as JSON without spaces, and how many events were missed in them\n"
          "  --servers PID[,PID…] --database PID --bus PID   whose CPU and memory are read\n"
          "  --window N      messages in flight for each sender (1)\n"
          "  --rate N        messages a second of all senders in turn, whatever comes back (default: a closed loop)\n"
          "  --full          a send is over with its ack and all its deliveries (default: with its ack)\n"
          "  --idle          connect, hold for --secs, send nothing\n"
          "  --resume        connect naming where one was, and be told what was missed; send nothing\n"
          "  --hello-rooms N conversations that every hello has to name\n"
          "  --secs T --warm T --settle T --drain T --connect T   seconds of each phase (the last two: at most)\n"
          "  --text BYTES (64)   --opening N   handshakes in flight (64)\n");
  exit(2);
}

static int read_list(const char *text, int *into, int most) {
  int n = 0;
  while (*text && n < most) {
    char *end;
    into[n++] = (int)strtol(text, &end, 10);
    if (end == text) usage_and_exit();
    text = *end == ',' ? end + 1 : end;
  }
  return n;
}

static void read_people(options *o, const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) die("the file of people can't be read");
  o->people = calloc(MOST_CONNECTIONS, sizeof *o->people);
  if (!o->people) die("memory");
  char token[2048], conversation[64], resume[2048];
  int room, sends, instance, missed = 0;
  while (o->people_count < MOST_CONNECTIONS &&
         fscanf(file, "%2047s %63s %d %d %d", token, conversation, &room, &sends, &instance) == 5) {
    if (o->resume && fscanf(file, "%2047s %d", resume, &missed) != 2) die("a line in the file of people does not say what it resumes");
    if (room < 0 || room >= MOST_ROOMS || instance < 0 || instance >= o->port_count) die("a bad line in the file of people");
    o->people[o->people_count++] = (person){strdup(token), strdup(conversation), room, instance, sends != 0,
                                              o->resume ? strdup(resume) : NULL, missed};
    if (room >= o->room_count) o->room_count = room + 1;
  }
  fclose(file);
}

void read_options(options *o, int argc, char **argv) {
  const char *people = NULL;
  *o = (options){.window = 1, .hello_rooms = -1, .opening = 64, .text_bytes = 64, .warm_s = 1, .measured_s = 4, .settle_s = 0.3, .drain_s = 10, .connect_s = 120};
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i];
    if (!strcmp(name, "--full")) o->full = true;
    else if (!strcmp(name, "--idle")) o->idle = true;
    else if (!strcmp(name, "--resume")) o->resume = o->idle = true;
    else if (i + 1 == argc) usage_and_exit();
    else {
      const char *value = argv[++i];
      if (!strcmp(name, "--people")) people = value;
      else if (!strcmp(name, "--ports")) o->port_count = read_list(value, o->ports, MOST_INSTANCES);
      else if (!strcmp(name, "--servers")) o->server_pid_count = read_list(value, o->server_pids, MOST_PIDS);
      else if (!strcmp(name, "--database")) o->database_pid = atoi(value);
      else if (!strcmp(name, "--bus")) o->bus_pid = atoi(value);
      else if (!strcmp(name, "--window")) o->window = atoi(value);
      else if (!strcmp(name, "--rate")) o->rate = atof(value);
      else if (!strcmp(name, "--hello-rooms")) o->hello_rooms = atoi(value);
      else if (!strcmp(name, "--opening")) o->opening = atoi(value);
      else if (!strcmp(name, "--text")) o->text_bytes = atoi(value);
      else if (!strcmp(name, "--secs")) o->measured_s = atof(value);
      else if (!strcmp(name, "--warm")) o->warm_s = atof(value);
      else if (!strcmp(name, "--settle")) o->settle_s = atof(value);
      else if (!strcmp(name, "--drain")) o->drain_s = atof(value);
      else if (!strcmp(name, "--connect")) o->connect_s = atof(value);
      else usage_and_exit();
    }
  }
  bool sound = people && o->port_count && o->window > 0 && o->window <= MOST_WINDOW && o->opening > 0 && o->text_bytes >= 10 &&
               o->text_bytes <= 8000 && o->rate >= 0 && o->rate <= 1e6 && o->measured_s <= 3600 && o->warm_s <= 600 && o->settle_s <= 60 && o->drain_s <= 60 && o->connect_s <= 600;
  if (!sound) usage_and_exit();
  read_people(o, people);
}
