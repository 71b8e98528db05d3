// Non-blocking TCP to the loopback address, and websocket frames on it.
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, MOST_SENT = 16 * 1024, MOST_READ = 256 * 1024 };

static int epoll_fd;

static void watch(connection *c, int how, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, how, c->fd, &e)) die("epoll_ctl");
}

void socket_open(connection *c, int epoll, int port) {
  epoll_fd = epoll;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) die("socket");
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
  c->opened_at = now_ns();
  c->state = CONNECTING;
  c->writing = true;
  watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

void socket_fail(connection *c, const char *why) {
  if (c->state == DEAD) return;
  if (counts.dead < 5) fprintf(stderr, "load: connection %d in state %d: %s\n", (int)(c->who - opts.people), c->state, why);
  if (c->state == READY) counts.ready--;
  else counts.opening--;
  counts.dead++;
  c->state = DEAD;
  close(c->fd);
}

static void send_bytes(connection *c, const char *bytes, int n) {
  if (!c->unsent_length) {
    ssize_t taken = write(c->fd, bytes, (size_t)n);
    if (taken == n) return;
    if (taken < 0) {
      if (errno != EAGAIN) {
        socket_fail(c, strerror(errno));
        return;
      }
      taken = 0;
    }
    bytes += taken;
    n -= (int)taken;
  }
  if (c->unsent_length + n > c->unsent_room) {
    c->unsent_room = (c->unsent_length + n) * 2;
    if (!(c->unsent = realloc(c->unsent, (size_t)c->unsent_room))) die("memory");
  }
  memcpy(c->unsent + c->unsent_length, bytes, (size_t)n);
  c->unsent_length += n;
  if (!c->writing) {
    c->writing = true;
    watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
  }
}

static void send_frame(connection *c, int opcode, const char *payload, int n) {
  // A client has to mask; that the key is always the same is nobody's business on the loopback.
  static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
  char frame[MOST_SENT + 16];
  int at = 2;
  if (n > MOST_SENT) die("a frame too large to send");
  frame[0] = (char)(0x80 | opcode);
  if (n < 126) {
    frame[1] = (char)(0x80 | n);
  } else {
    frame[1] = (char)(0x80 | 126);
    frame[2] = (char)(n >> 8);
    frame[3] = (char)(n & 255);
    at = 4;
  }
  memcpy(frame + at, key, 4);
  at += 4;
  for (int i = 0; i < n; i++) frame[at + i] = (char)(payload[i] ^ key[i & 3]);
  send_bytes(c, frame, at + n);
}

void socket_send_text(connection *c, const char *text, int length) { send_frame(c, TEXT, text, length); }

static void on_frame(connection *c, int first, const char *payload, int n) {
  if ((first & 0xf0) != 0x80) socket_fail(c, "a fragmented or compressed frame");
  else if ((first & 15) == TEXT) talk_text(c, payload, n);
  else if ((first & 15) == PING) send_frame(c, PONG, payload, n);
  else if ((first & 15) == CLOSE) socket_fail(c, "closed by the server");
}

// How many of the bytes were whole frames.
static int take_frames(connection *c, const unsigned char *bytes, int n) {
  int at = 0;
  while (n - at >= 2 && c->state != DEAD) {
    const unsigned char *p = bytes + at;
    uint64_t length = p[1] & 127;
    int header = 2;
    if (length == 126) {
      if (n - at < 4) break;
      length = (uint64_t)(p[2] << 8 | p[3]);
      header = 4;
    } else if (length == 127) {
      if (n - at < 10) break;
      length = 0;
      for (int i = 2; i < 10; i++) length = length << 8 | p[i];
      header = 10;
    }
    if (length > MOST_READ / 2) die("a frame too large to read");
    if ((uint64_t)(n - at) < (uint64_t)header + length) break;
    on_frame(c, p[0], (const char *)p + header, (int)length);
    at += header + (int)length;
  }
  return at;
}

static void on_readable(connection *c) {
  static char bytes[MOST_READ];
  int had = c->unread_length;
  if (had) memcpy(bytes, c->unread, (size_t)had);
  ssize_t got = read(c->fd, bytes + had, sizeof bytes - (size_t)had);
  if (got <= 0) {
    if (got < 0 && errno == EAGAIN) return;
    socket_fail(c, got ? strerror(errno) : "end of file");
    return;
  }
  int n = had + (int)got, used = 0;
  c->unread_length = 0;
  if (c->state == UPGRADING) {
    char *end = memmem(bytes, (size_t)n, "\r\n\r\n", 4);
    if (end && strncmp(bytes, "HTTP/1.1 101", 12) != 0) {
      socket_fail(c, "the upgrade to a websocket was refused");
      return;
    }
    if (end) {
      used = (int)(end - bytes) + 4;
      c->state = OPENING;
    }
  }
  if (c->state != UPGRADING) used += take_frames(c, (unsigned char *)bytes + used, n - used);
  if (c->state == DEAD || used == n) return;
  if (n - used > c->unread_room) {
    c->unread_room = n - used;
    if (!(c->unread = realloc(c->unread, (size_t)c->unread_room))) die("memory");
  }
  c->unread_length = n - used;
  memcpy(c->unread, bytes + used, (size_t)c->unread_length);
}

static void on_connected(connection *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) {
    socket_fail(c, strerror(error));
    return;
  }
  c->state = UPGRADING;
  c->writing = false;
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
  char request[512];
  int n = snprintf(request, sizeof request,
                   "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\n"
                   "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                   "User-Agent: parley-load\r\n\r\n",
                   opts.ports[c->who->instance]);
  send_bytes(c, request, n);
}

static void on_writable(connection *c) {
  if (c->unsent_length) {
    ssize_t taken = write(c->fd, c->unsent, (size_t)c->unsent_length);
    if (taken < 0 && errno != EAGAIN) {
      socket_fail(c, strerror(errno));
      return;
    }
    if (taken > 0) {
      memmove(c->unsent, c->unsent + taken, (size_t)(c->unsent_length - taken));
      c->unsent_length -= (int)taken;
    }
  }
  if (!c->unsent_length) {
    c->writing = false;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
  }
}

void socket_event(connection *c, uint32_t events) {
  if (c->state == DEAD) return;
  if (c->state == CONNECTING) {
    on_connected(c);
    return;
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
  if (c->state != DEAD && (events & EPOLLOUT)) on_writable(c);
}
