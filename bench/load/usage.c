// CPU from /proc/<pid>/task/<tid>/schedstat: nanoseconds on a core, where utime and stime count ticks of 10 ms.
#include "load.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static double process_s(int pid) {
  char path[300];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks) return 0;
  double total = 0;
  for (struct dirent *e; (e = readdir(tasks));) {
    if (!isdigit((unsigned char)e->d_name[0])) continue;
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
    FILE *file = fopen(path, "r");
    unsigned long long ran = 0;
    if (file && fscanf(file, "%llu", &ran) == 1) total += (double)ran / 1e9;
    if (file) fclose(file);
  }
  closedir(tasks);
  return total;
}

// A process's parent, and the CPU seconds of its children that have ended. False where it is gone.
static bool read_stat(int pid, int *parent, double *ended_s) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return false;
  size_t n = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[n] = 0;
  char *rest = strrchr(line, ')'); // the name before it may hold anything
  long user = 0, system = 0;
  if (!rest) return false;
  // state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime
  if (sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %ld %ld", parent, &user, &system) != 3)
    return false;
  *ended_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
  return true;
}

// A PostgreSQL server: the postmaster, its children, and those that have come and gone.
static double family_s(int pid) {
  int parent;
  double ended_s;
  if (pid <= 0 || !read_stat(pid, &parent, &ended_s)) return 0;
  double total = process_s(pid) + ended_s;
  DIR *all = opendir("/proc");
  if (!all) return total;
  for (struct dirent *e; (e = readdir(all));) {
    int child = atoi(e->d_name);
    double ignored;
    if (child > 0 && read_stat(child, &parent, &ignored) && parent == pid) total += process_s(child);
  }
  closedir(all);
  return total;
}

static long resident_kb(int pid) {
  char path[64];
  long size = 0, resident = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (fscanf(file, "%ld %ld", &size, &resident) != 2) resident = 0;
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

usage read_usage(const options *o) {
  usage u = {0};
  for (int i = 0; i < o->server_pid_count; i++) {
    u.servers_s += process_s(o->server_pids[i]);
    u.servers_kb += resident_kb(o->server_pids[i]);
  }
  u.database_s = family_s(o->database_pid);
  u.bus_s = family_s(o->bus_pid);
  struct rusage own;
  getrusage(RUSAGE_SELF, &own);
  u.own_s = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
  return u;
}
