/* Counts what a process changes below one directory, and fails, interrupts or kills it there.
 *
 * Preloaded, it stands before the C library: opening for writing, mkdir, write and its relatives,
 * truncating, fsync, rename, removing, chmod. Not seen are stores into mapped files, system calls
 * that pass the C library by, and what its own streams flush (fopen and fwrite themselves are). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, ONCE, FROM_NOW_ON, SIGNAL }; /* what is done at the event */

#define SLOTS 64
static long *counts; /* shared by all processes: a parent reads what its dead child counted */
static int slot, log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;
static int mode, number; /* number: of the error or the signal */
static long at, again;   /* events, from 1; again: of a second signal, 0 without */
static int full;         /* the half that still fitted is written */

__attribute__((constructor)) static void begin(void) {
  counts = mmap(NULL, SLOTS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
}

void faults_arm(const char *below, int new_slot, int log, int what, int which, long event,
                long second) {
  root_length = strlen(below);
  slot = new_slot, log_fd = log, mode = what, number = which, at = event, again = second, full = 0;
  counts[slot] = 0;
  memcpy(root, below, root_length + 1);
}

long faults_count(int of_slot) { return counts[of_slot]; }

/* That signal at the next event. */
void faults_again_by(int which) { mode = SIGNAL, number = which, at = 0, again = counts[slot] + 1; }

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

static const char *path_of(int fd, const char *path, char *space) {
  char link[64];
  if (path && (path[0] == '/' || fd == AT_FDCWD)) {
    if (path[0] == '/' || !getcwd(space, PATH_MAX / 2)) return path;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, space, PATH_MAX / 2);
    space[length < 0 ? 0 : length] = 0;
  }
  if (path) strncat(strcat(space, "/"), path, PATH_MAX / 2 - 2);
  return space;
}

enum { GOES_ON, FAILS, HALF, HALF_THEN_DIES };

/* One event. A full disk does not keep anybody from removing. */
static int event(const char *kind, int fd, const char *path, size_t length) {
  char space[PATH_MAX + 2];
  int before = errno;
  if (!root_length) return GOES_ON;
  const char *whole = path_of(fd, path, space);
  errno = before;
  if (strncmp(whole, root, root_length)) return GOES_ON;
  long now = __atomic_add_fetch(&counts[slot], 1, __ATOMIC_SEQ_CST);
  if (log_fd >= 0) dprintf(log_fd, "%s\t%s\n", kind, whole);
  errno = before;
  int frees = !strcmp(kind, "remove") || !strcmp(kind, "chmod");
  if (mode == SIGNAL && (now == at || now == again)) {
    if (length > 1 && number == SIGKILL) return HALF_THEN_DIES;
    kill(getpid(), number);
  }
  if (frees || now < at || (mode == ONCE && now > at) || (mode != ONCE && mode != FROM_NOW_ON))
    return GOES_ON;
  if (mode == FROM_NOW_ON && length > 1 && !full) {
    full = 1;
    return HALF;
  }
  errno = number;
  return FAILS;
}

#define FAIL_OR(kind, fd, path, call)                  \
  do {                                                 \
    if (event(kind, fd, path, 0) == FAILS) return -1; \
    return call;                                       \
  } while (0)

/* Writes all, half, or nothing of `length` bytes; half, and dies, where it is to be killed. */
#define WRITE(fd, length, call)                                 \
  do {                                                          \
    int what = event("write", fd, NULL, length);                \
    size_t whole = length, some = what >= HALF ? whole / 2 : whole; \
    if (what == FAILS) return -1;                               \
    ssize_t done = call;                                        \
    if (what == HALF_THEN_DIES) kill(getpid(), SIGKILL);        \
    return done;                                                \
  } while (0)

ssize_t write(int fd, const void *data, size_t length) {
  WRITE(fd, length, REAL(ssize_t, write, int, const void *, size_t)(fd, data, some));
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  WRITE(fd, length,
        REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)(fd, data, some, offset));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
  return pwrite64(fd, data, length, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (event("write", fd, NULL, 0) == FAILS) return -1;
  return REAL(ssize_t, writev, int, const struct iovec *, int)(fd, parts, count);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
  WRITE(to, length, REAL(ssize_t, sendfile64, int, int, off64_t *, size_t)(to, from, offset, some));
}
ssize_t sendfile(int to, int from, off_t *offset, size_t length) {
  return sendfile64(to, from, offset, length);
}
ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t length, unsigned flags) {
  WRITE(to, length,
        REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned)(
            from, in, to, out, some, flags));
}
size_t fwrite(const void *data, size_t size, size_t many, FILE *file) {
  size_t half = many;
  int what = event("write", fileno(file), NULL, size * many);
  if (what == FAILS) return 0;
  if (what >= HALF) half = many / 2;
  size_t done = REAL(size_t, fwrite, const void *, size_t, size_t, FILE *)(data, size, half, file);
  if (what == HALF_THEN_DIES) fflush(file), kill(getpid(), SIGKILL);
  return done;
}
int ftruncate64(int fd, off64_t length) {
  FAIL_OR("truncate", fd, NULL, REAL(int, ftruncate64, int, off64_t)(fd, length));
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
int fsync(int fd) { FAIL_OR("sync", fd, NULL, REAL(int, fsync, int)(fd)); }
int fdatasync(int fd) { FAIL_OR("sync", fd, NULL, REAL(int, fdatasync, int)(fd)); }

int openat64(int at_fd, const char *path, int flags, ...) {
  mode_t rights = 0;
  if (flags & (O_CREAT | __O_TMPFILE)) {
    va_list more;
    va_start(more, flags), rights = va_arg(more, mode_t), va_end(more);
  }
  if ((flags & O_ACCMODE) != O_RDONLY && event("open", at_fd, path, 0) == FAILS) return -1;
  return REAL(int, openat64, int, const char *, int, ...)(at_fd, path, flags, rights);
}
#define OPEN_AS(name)                                                     \
  int name(const char *path, int flags, ...) {                            \
    va_list more;                                                         \
    va_start(more, flags);                                                \
    mode_t rights = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                         \
    return openat64(AT_FDCWD, path, flags, rights);                       \
  }
OPEN_AS(open)
OPEN_AS(open64)
int openat(int at_fd, const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t rights = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
  va_end(more);
  return openat64(at_fd, path, flags, rights);
}
FILE *fopen64(const char *path, const char *how) {
  if (strpbrk(how, "wa+") && event("open", AT_FDCWD, path, 0) == FAILS) return NULL;
  return REAL(FILE *, fopen64, const char *, const char *)(path, how);
}
FILE *fopen(const char *path, const char *how) { return fopen64(path, how); }

int mkdirat(int fd, const char *path, mode_t rights) {
  FAIL_OR("open", fd, path, REAL(int, mkdirat, int, const char *, mode_t)(fd, path, rights));
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
  char space[PATH_MAX + 2];
  if (log_fd >= 0) dprintf(log_fd, "from\t%s\n", path_of(from_fd, from, space));
  FAIL_OR("rename", to_fd, to,
          REAL(int, renameat2, int, const char *, int, const char *, unsigned)(from_fd, from, to_fd,
                                                                               to, flags));
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
  return renameat2(from_fd, from, to_fd, to, 0);
}
int rename(const char *from, const char *to) {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int unlinkat(int fd, const char *path, int flags) {
  FAIL_OR("remove", fd, path, REAL(int, unlinkat, int, const char *, int)(fd, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int fchmodat(int fd, const char *path, mode_t rights, int flags) {
  FAIL_OR("chmod", fd, path, REAL(int, fchmodat, int, const char *, mode_t, int)(fd, path, rights, flags));
}
int chmod(const char *path, mode_t rights) { return fchmodat(AT_FDCWD, path, rights, 0); }
int fchmod(int fd, mode_t rights) {
  FAIL_OR("chmod", fd, NULL, REAL(int, fchmod, int, mode_t)(fd, rights));
}
