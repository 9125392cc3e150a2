/* Preloaded into a daemon: lets the n-th write, sync, rename or message of a process tree fail, or kill the caller there.
 * What happens is said by a file in memory that the test maps, too. Only calls on files below one folder count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, SEND = 8 };

struct control {
  int32_t calls;      /* which of them count; 0: none */
  int32_t error;      /* errno of the failure; 0: kill with SIGKILL instead */
  int64_t countdown;  /* the call that makes it 0 is the one */
  int32_t again;      /* every later call fails, too */
  int32_t fired;
  char under[1024];
  char part[64];      /* stands in the path of the one; empty: any path */
  char where[1024];   /* path of the last one */
};

static struct control* control(void) {
  static struct control* mapped;
  if (mapped) return mapped;
  const char* path = getenv("UMBRA_FAULTS");
  int (*plain_open)(const char*, int, ...) = dlsym(RTLD_NEXT, "open");
  int descriptor = path ? plain_open(path, O_RDWR | O_CLOEXEC) : -1;
  if (descriptor < 0) return NULL;
  void* found = mmap(NULL, sizeof *mapped, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  return found == MAP_FAILED ? NULL : (mapped = found);
}

/* Whether this call is to fail: its errno, or 0. */
static int due(int call, const char* path) {
  struct control* c = control();
  if (!c || !(c->calls & call)) return 0;
  if (call != SEND && (!path || strncmp(path, c->under, strlen(c->under)))) return 0;
  if (c->part[0] && (!path || !strstr(path, c->part))) return 0;
  int64_t left = __atomic_sub_fetch(&c->countdown, 1, __ATOMIC_SEQ_CST);
  if (left > 0 || (left < 0 && !c->again)) return 0;
  snprintf(c->where, sizeof c->where, "%s", path ? path : "");
  __atomic_add_fetch(&c->fired, 1, __ATOMIC_SEQ_CST);
  if (!c->error) {
    c->calls = 0; /* its successor lives */
    kill(getpid(), SIGKILL);
  }
  return c->error;
}

static int due_at(int call, int descriptor) {
  struct control* c = control();
  if (!c || !(c->calls & call)) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return due(call, path);
}

static int due_by_name(int call, int folder, const char* name) {
  struct control* c = control();
  if (!c || !(c->calls & call)) return 0;
  if (name[0] == '/' || folder == AT_FDCWD) return due(call, name);
  return due_at(call, folder);
}

#define REAL(result, name, ...) \
  static result (*real)(__VA_ARGS__); \
  if (!real) real = dlsym(RTLD_NEXT, #name)
#define FAIL_IF(cause) \
  do { \
    int error_ = (cause); \
    if (error_) { \
      errno = error_; \
      return -1; \
    } \
  } while (0)

ssize_t write(int fd, const void* from, size_t n) {
  REAL(ssize_t, write, int, const void*, size_t);
  FAIL_IF(due_at(WRITE, fd));
  return real(fd, from, n);
}

ssize_t pwrite(int fd, const void* from, size_t n, off_t at) {
  REAL(ssize_t, pwrite, int, const void*, size_t, off_t);
  FAIL_IF(due_at(WRITE, fd));
  return real(fd, from, n, at);
}

ssize_t pwrite64(int fd, const void* from, size_t n, off64_t at) {
  REAL(ssize_t, pwrite64, int, const void*, size_t, off64_t);
  FAIL_IF(due_at(WRITE, fd));
  return real(fd, from, n, at);
}

int ftruncate64(int fd, off64_t size) {
  REAL(int, ftruncate64, int, off64_t);
  FAIL_IF(due_at(WRITE, fd));
  return real(fd, size);
}

int fsync(int fd) {
  REAL(int, fsync, int);
  FAIL_IF(due_at(SYNC, fd));
  return real(fd);
}

int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  FAIL_IF(due_at(SYNC, fd));
  return real(fd);
}

int rename(const char* from, const char* to) {
  REAL(int, rename, const char*, const char*);
  FAIL_IF(due(RENAME, to));
  return real(from, to);
}

int renameat(int folder, const char* from, int other, const char* to) {
  REAL(int, renameat, int, const char*, int, const char*);
  FAIL_IF(due_by_name(RENAME, other, to));
  return real(folder, from, other, to);
}

ssize_t sendmsg(int fd, const struct msghdr* message, int flags) {
  REAL(ssize_t, sendmsg, int, const struct msghdr*, int);
  ssize_t sent = real(fd, message, flags);
  due(SEND, NULL); /* after it: the other end is at work */
  return sent;
}
