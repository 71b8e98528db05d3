// What a delivery can't be cheaper than: send() of a frame to each of many loopback sockets, in lock step with a process on
// another core that reads them. Prints one line of JSON: CPU microseconds a frame, over the rounds.
//
//     floor SENDER_CORE READER_CORE [bytes a frame (200) [sockets (1000) [rounds (300)]]]
//
// In lock step: the next round begins when all of the last one has been read and the reader has fallen asleep, as a room hears
// one message after the other. Without that the reader lags ever further behind, nobody has to be woken, and sends get cheaper.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_SOCKETS = 10000, MOST_ROUNDS = 100000, WARM = 10, MOST_BYTES = 16384, ASLEEP_NS = 100000, PATIENCE_S = 60 };

static void need(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(3);
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static void pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  need(!sched_setaffinity(0, sizeof cores, &cores), "the core");
}

static void open_pair(int listener, const struct sockaddr_in *to, int *near, int *far) {
  int one = 1;
  *far = socket(AF_INET, SOCK_STREAM, 0);
  need(*far >= 0 && !connect(*far, (const void *)to, sizeof *to), "connect");
  *near = accept(listener, NULL, NULL);
  need(*near >= 0 && !setsockopt(*near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "accept");
}

static _Noreturn void read_all(const int *sockets, int count, atomic_ulong *taken) {
  static char bytes[MOST_BYTES];
  int epoll = epoll_create1(0);
  need(epoll >= 0, "epoll");
  for (int i = 0; i < count; i++) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = sockets[i]};
    need(!epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &e), "epoll_ctl");
  }
  atomic_fetch_add(taken, 1); // ready
  for (;;) {
    static struct epoll_event events[1024];
    int n = epoll_wait(epoll, events, 1024, -1);
    for (int i = 0; i < n; i++)
      if (read(events[i].data.fd, bytes, sizeof bytes) <= 0) exit(0);
    if (n > 0) atomic_fetch_add(taken, (unsigned long)n);
  }
}

static void wait_for(atomic_ulong *taken, unsigned long number) {
  while (atomic_load(taken) < number) relax();
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  int sender = argc > 1 ? atoi(argv[1]) : 0, reader = argc > 2 ? atoi(argv[2]) : 1;
  int bytes = argc > 3 ? atoi(argv[3]) : 200, sockets = argc > 4 ? atoi(argv[4]) : 1000, rounds = argc > 5 ? atoi(argv[5]) : 300;
  if (sender == reader || bytes < 1 || bytes > MOST_BYTES || sockets < 1 || sockets > MOST_SOCKETS || rounds < 1 || rounds > MOST_ROUNDS) {
    fprintf(stderr, "floor SENDER_CORE READER_CORE [bytes [sockets [rounds]]], on two cores\n");
    return 2;
  }
  alarm(PATIENCE_S);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = (rlim_t)sockets * 2 + 64;
  need(!setrlimit(RLIMIT_NOFILE, &limit), "too few file descriptors: raise ulimit -n");

  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof to;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  need(listener >= 0 && !bind(listener, (void *)&to, sizeof to) && !listen(listener, 16), "listen");
  need(!getsockname(listener, (void *)&to, &size), "getsockname");
  int *near = calloc((size_t)sockets, sizeof *near), *far = calloc((size_t)sockets, sizeof *far);
  uint64_t *took = calloc((size_t)rounds, sizeof *took);
  atomic_ulong *taken = mmap(NULL, sizeof *taken, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  need(near && far && took && taken != MAP_FAILED, "memory");
  for (int i = 0; i < sockets; i++) open_pair(listener, &to, &near[i], &far[i]);

  pid_t child = fork();
  need(child >= 0, "fork");
  if (!child) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(reader);
    read_all(far, sockets, taken);
  }
  pin(sender);
  static char frame[MOST_BYTES];
  memset(frame, 'x', sizeof frame);
  wait_for(taken, 1);
  unsigned long sent = 1;
  for (int i = -WARM; i < rounds; i++) {
    for (uint64_t until = now_ns(CLOCK_MONOTONIC) + ASLEEP_NS; now_ns(CLOCK_MONOTONIC) < until;) relax();
    uint64_t begun = now_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int n = 0; n < sockets; n++) need(send(near[n], frame, (size_t)bytes, MSG_NOSIGNAL) == bytes, "send");
    if (i >= 0) took[i] = (now_ns(CLOCK_THREAD_CPUTIME_ID) - begun) / (uint64_t)sockets;
    wait_for(taken, sent += (unsigned long)sockets);
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  qsort(took, (size_t)rounds, sizeof *took, ascending);
  printf("{\"send_us\":%.2f,\"p10_us\":%.2f,\"p90_us\":%.2f,\"bytes\":%d,\"sockets\":%d}\n", (double)took[rounds / 2] / 1e3,
         (double)took[rounds / 10] / 1e3, (double)took[rounds * 9 / 10] / 1e3, bytes, sockets);
  return 0;
}
