// Stands before the C library, by LD_PRELOAD, and counts the calls that change what is below one folder: at a given
// count it ends the process, or takes the disk for full or read-only from there on. For tools/faults.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = 1, FULL = 2, READ_ONLY = 3 };
enum { MAX_FILES = 65536 };

static char folder[4096];
static atomic_int mode;
static atomic_long at, count;
static atomic_char below[MAX_FILES];

// Every call of a process after this one that changes something below the folder is counted; the last resort of `mode`
// is what happens at number `where`, from 1. 0: only count.
void faults_arm(const char* path, int what, long where) {
  strncpy(folder, path, sizeof(folder) - 1);
  count = 0;
  at = where;
  mode = what;
}
long faults_count(void) { return count; }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_below(int directory, const char* path) {
  if (!folder[0] || !path) return 0;
  if (path[0] == '/') return strncmp(path, folder, strlen(folder)) == 0;
  char link[64], base[4096];
  ssize_t length;
  if (directory == AT_FDCWD) {
    strcpy(link, "/proc/self/cwd");
  } else {
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
  }
  length = readlink(link, base, sizeof(base) - 1);
  if (length < 0) return 0;
  base[length] = 0;
  return strncmp(base, folder, strlen(folder)) == 0;
}

static int file_is_below(int file) { return file >= 0 && file < MAX_FILES && below[file]; }

// Whether the call fails: 0, or an error. `grows`: it takes room on the disk. Does not come back where it kills.
static int fault(int grows, int may_kill) {
  const int what = mode;
  const long number = ++count;
  if (!at || number < at) return 0;
  if (what == KILL && may_kill && number == at) kill(getpid(), SIGKILL);
  if (what == FULL && grows) return ENOSPC;
  return what == READ_ONLY ? EROFS : 0;
}

#define FAIL_IF(is_there, grows, result)           \
  do {                                             \
    if (is_there) {                                \
      const int error = fault(grows, 1);           \
      if (error) {                                 \
        errno = error;                             \
        return result;                             \
      }                                            \
    }                                              \
  } while (0)

static int note(int file, int is_there) {
  if (file >= 0 && file < MAX_FILES) below[file] = (char)is_there;
  return file;
}

#define OPEN(name, ...)                                                                      \
  mode_t mode_given = 0;                                                                     \
  if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
    va_list rest;                                                                            \
    va_start(rest, flags);                                                                   \
    mode_given = va_arg(rest, mode_t);                                                       \
    va_end(rest);                                                                            \
  }                                                                                          \
  REAL(name);                                                                                \
  const int writes = (flags & O_ACCMODE) != O_RDONLY;                                        \
  const int is_there = writes && is_below(directory, path);                                  \
  FAIL_IF(is_there && (flags & (O_CREAT | O_TRUNC)), (flags & O_CREAT) != 0, -1);            \
  return note(real(__VA_ARGS__, flags, mode_given), is_there)

int open(const char* path, int flags, ...) { const int directory = AT_FDCWD; OPEN(open, path); }
int open64(const char* path, int flags, ...) { const int directory = AT_FDCWD; OPEN(open64, path); }
int openat(int directory, const char* path, int flags, ...) { OPEN(openat, directory, path); }
int openat64(int directory, const char* path, int flags, ...) { OPEN(openat64, directory, path); }

int close(int file) {
  REAL(close);
  note(file, 0);
  return real(file);
}

static FILE* opened(FILE* stream, int is_there) {
  if (stream) note(fileno(stream), is_there);
  return stream;
}
FILE* fopen(const char* path, const char* how) {
  REAL(fopen);
  const int is_there = strpbrk(how, "wa+") && is_below(AT_FDCWD, path);
  FAIL_IF(is_there, 1, NULL);
  return opened(real(path, how), is_there);
}
FILE* fopen64(const char* path, const char* how) {
  REAL(fopen64);
  const int is_there = strpbrk(how, "wa+") && is_below(AT_FDCWD, path);
  FAIL_IF(is_there, 1, NULL);
  return opened(real(path, how), is_there);
}

// A write that is killed has written half of what it should.
#define WRITE(file, half, result)                                       \
  if (file_is_below(file)) {                                            \
    const int is_last = mode == KILL && at && count + 1 == at;          \
    if (is_last) half;                                                  \
    FAIL_IF(1, 1, result);                                              \
  }

ssize_t write(int file, const void* data, size_t size) {
  REAL(write);
  WRITE(file, (void)!real(file, data, size / 2), -1);
  return real(file, data, size);
}
ssize_t pwrite(int file, const void* data, size_t size, off_t where) {
  REAL(pwrite);
  WRITE(file, (void)!real(file, data, size / 2, where), -1);
  return real(file, data, size, where);
}
ssize_t pwrite64(int file, const void* data, size_t size, off64_t where) {
  REAL(pwrite64);
  WRITE(file, (void)!real(file, data, size / 2, where), -1);
  return real(file, data, size, where);
}
ssize_t writev(int file, const struct iovec* parts, int number) {
  REAL(writev);
  WRITE(file, (void)!real(file, parts, number / 2), -1);
  return real(file, parts, number);
}
size_t fwrite(const void* data, size_t size, size_t number, FILE* stream) {
  REAL(fwrite);
  WRITE(fileno(stream), (real(data, size, number / 2, stream), fflush(stream)), 0);
  return real(data, size, number, stream);
}
ssize_t sendfile(int to, int from, off_t* offset, size_t size) {
  static ssize_t (*real)(int, int, off_t*, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "sendfile");
  FAIL_IF(file_is_below(to), 1, -1);
  return real(to, from, offset, size);
}
ssize_t sendfile64(int to, int from, off64_t* offset, size_t size) {
  static ssize_t (*real)(int, int, off64_t*, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "sendfile64");
  FAIL_IF(file_is_below(to), 1, -1);
  return real(to, from, offset, size);
}
ssize_t copy_file_range(int from, off64_t* from_at, int to, off64_t* to_at, size_t size, unsigned flags) {
  REAL(copy_file_range);
  FAIL_IF(file_is_below(to), 1, -1);
  return real(from, from_at, to, to_at, size, flags);
}

int ftruncate(int file, off_t size) {
  REAL(ftruncate);
  FAIL_IF(file_is_below(file), 0, -1);
  return real(file, size);
}
int ftruncate64(int file, off64_t size) {
  REAL(ftruncate64);
  FAIL_IF(file_is_below(file), 0, -1);
  return real(file, size);
}
int fsync(int file) {
  REAL(fsync);
  FAIL_IF(file_is_below(file), 0, -1);
  return real(file);
}
int rename(const char* from, const char* to) {
  REAL(rename);
  FAIL_IF(is_below(AT_FDCWD, from) || is_below(AT_FDCWD, to), 0, -1);
  return real(from, to);
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
  REAL(renameat);
  FAIL_IF(is_below(from_folder, from) || is_below(to_folder, to), 0, -1);
  return real(from_folder, from, to_folder, to);
}
int link(const char* from, const char* to) {
  REAL(link);
  FAIL_IF(is_below(AT_FDCWD, to), 1, -1);
  return real(from, to);
}
int symlink(const char* from, const char* to) {
  REAL(symlink);
  FAIL_IF(is_below(AT_FDCWD, to), 1, -1);
  return real(from, to);
}
int unlink(const char* path) {
  REAL(unlink);
  FAIL_IF(is_below(AT_FDCWD, path), 0, -1);
  return real(path);
}
int unlinkat(int directory, const char* path, int flags) {
  REAL(unlinkat);
  FAIL_IF(is_below(directory, path), 0, -1);
  return real(directory, path, flags);
}
int rmdir(const char* path) {
  REAL(rmdir);
  FAIL_IF(is_below(AT_FDCWD, path), 0, -1);
  return real(path);
}
int mkdir(const char* path, mode_t how) {
  REAL(mkdir);
  FAIL_IF(is_below(AT_FDCWD, path), 1, -1);
  return real(path, how);
}
int mkdirat(int directory, const char* path, mode_t how) {
  REAL(mkdirat);
  FAIL_IF(is_below(directory, path), 1, -1);
  return real(directory, path, how);
}
