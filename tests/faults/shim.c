/* The calls that change files, interposed by LD_PRELOAD, so that a test can count them, fail one, or die in one.

   What to do stands in a small file that parent and child map together (struct control, mirrored in shim.py).
   libc's own buffered writes do not come through here, so fwrite, fflush and fclose are interposed as well. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, TRUNCATE, CREATE, REMOVE, KINDS };       /* what a call does */
enum { DATABASE, INDEX, OTHER, CLASSES };                             /* and to which file */
enum { NOTHING, FAIL, TORN, SHORT, KILL_BEFORE, KILL_TORN, KILL_AFTER, FULL };

struct control {
    int64_t pid;       /* only this process; 0: nobody */
    int64_t action;
    int64_t kinds;     /* bit mask of the kinds that count towards nth */
    int64_t classes;   /* bit mask of the classes that do */
    int64_t nth;       /* the first call to act upon, from 1 */
    int64_t span;      /* on how many calls from there on */
    int64_t err;
    int64_t seen;      /* calls that counted */
    int64_t fired;
    int64_t fired_kind;
    int64_t fired_class;
    int64_t budget;    /* FULL: bytes that may still be written */
    int64_t phase;     /* 1 + kind * CLASSES + class of the call under way, else 0 */
    int64_t counts[KINDS * CLASSES];
    char prefix[1024];
    char path[1024];   /* of the call acted upon */
};

static struct control *control;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("VECTORKIT_SHIM");
    if (!path) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) control = at;
    syscall(SYS_close, fd);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int watched(void) { return control && control->pid && control->pid == getpid(); }

static int class_of(const char *path) {
    if (strstr(path, "/index/")) return INDEX;
    const char *dot = strstr(path, ".db");
    return dot && !strchr(dot, '/') ? DATABASE : OTHER;
}

static int under(const char *path) {
    size_t length = strlen(control->prefix);
    return length && !strncmp(path, control->prefix, length);
}

/* The class of an open file, -1 when it is none of ours. */
static int fd_class(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 1023);
    if (length <= 0) return -1;
    path[length] = 0;
    return under(path) ? class_of(path) : -1;
}

static int path_class(int dir, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, 1024, "%s", name);
    } else if (dir == AT_FDCWD) {
        if (!getcwd(path, 1023)) return -1;
        strncat(path, "/", 1023 - strlen(path));
        strncat(path, name, 1023 - strlen(path));
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, path, 1023);
        if (length <= 0) return -1;
        path[length] = 0;
        strncat(path, "/", 1023 - strlen(path));
        strncat(path, name, 1023 - strlen(path));
    }
    return under(path) ? class_of(path) : -1;
}

/* What to do with this call: an action, NOTHING most of the time. */
static int enter(int kind, int class, const char *path) {
    control->phase = 1 + kind * CLASSES + class;
    __atomic_add_fetch(&control->counts[kind * CLASSES + class], 1, __ATOMIC_SEQ_CST);
    if (!(control->kinds >> kind & 1) || !(control->classes >> class & 1)) return NOTHING;
    int64_t n = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (control->action == NOTHING || control->action == FULL) return NOTHING;
    if (n < control->nth || n - control->nth >= control->span) return NOTHING;
    if (!control->fired++) {
        control->fired_kind = kind;
        control->fired_class = class;
        snprintf(control->path, sizeof control->path, "%s", path);
    }
    if (control->action == KILL_BEFORE) kill(getpid(), SIGKILL), pause();
    return (int)control->action;
}

static void leave(int action) {
    if (action == KILL_AFTER || action == KILL_TORN) kill(getpid(), SIGKILL), pause();
    control->phase = 0;
}

static int refuse(int error) {
    control->phase = 0;
    errno = error;
    return -1;
}

/* How many of these bytes fit; *error is what to say when not all do. */
static size_t fits(size_t count, int *error) {
    *error = 0;
    if (control->action != FULL) return count;
    int64_t left = __atomic_sub_fetch(&control->budget, (int64_t)count, __ATOMIC_SEQ_CST);
    if (left >= 0) return count;
    __atomic_add_fetch(&control->budget, (int64_t)count, __ATOMIC_SEQ_CST);
    control->fired++;
    *error = ENOSPC;
    return 0;
}

#define WRITER(call, torn, count_) \
    char path[1024]; \
    int class = watched() ? fd_class(fd, path) : -1; \
    if (class < 0) return call; \
    size_t whole = (count_); \
    int action = enter(WRITE, class, path), full; \
    if (action == FAIL) return refuse((int)control->err); \
    if (fits(whole, &full) < whole) return refuse(full); \
    if (action == TORN || action == SHORT || action == KILL_TORN) { \
        size_t half = (whole + 1) / 2; \
        ssize_t did = torn; \
        leave(action); \
        return action == TORN ? refuse((int)control->err) : did; \
    } \
    ssize_t done = call; \
    int kept = errno; \
    leave(action); \
    errno = kept; \
    return done

ssize_t write(int fd, const void *data, size_t count) {
    REAL(write);
    WRITER(real(fd, data, count), real(fd, data, half), count);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    REAL(pwrite);
    WRITER(real(fd, data, count, at), real(fd, data, half, at), count);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    REAL(pwrite64);
    WRITER(real(fd, data, count, at), real(fd, data, half, at), count);
}

static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int n = 0; n < count; n++) sum += parts[n].iov_len;
    return sum;
}

static ssize_t put(int fd, const struct iovec *parts, size_t half, off64_t at) {
    const struct iovec *first = parts;
    while (!first->iov_len) first++;
    size_t length = first->iov_len < half ? first->iov_len : half;
    return at < 0 ? syscall(SYS_write, fd, first->iov_base, length) : syscall(SYS_pwrite64, fd, first->iov_base, length, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    WRITER(real(fd, parts, count), half ? put(fd, parts, half, -1) : 0, total(parts, count));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(pwritev);
    WRITER(real(fd, parts, count, at), half ? put(fd, parts, half, at) : 0, total(parts, count));
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    char path[1024];
    int class = watched() ? fd_class(fileno(file), path) : -1;
    if (class < 0) return real(data, size, count, file);
    int action = enter(WRITE, class, path), full;
    int failed = action == FAIL;
    if (!failed && fits(size * count, &full) < size * count) failed = 1, control->err = full;
    if (failed) return refuse((int)control->err), 0;
    if (action == TORN || action == KILL_TORN || action == SHORT) {
        size_t did = real(data, size, (count + 1) / 2, file);
        if (action == KILL_TORN) fflush(file);
        leave(action);
        return action == TORN ? (refuse((int)control->err), did < count ? did : 0) : did;
    }
    size_t done = real(data, size, count, file);
    if (action == KILL_AFTER) fflush(file);
    leave(action);
    return done;
}

int fflush(FILE *file) {
    REAL(fflush);
    char path[1024];
    int class = file && watched() ? fd_class(fileno(file), path) : -1;
    if (class < 0) return real(file);
    int action = enter(WRITE, class, path);
    if (action == FAIL || action == TORN) return refuse((int)control->err);
    int done = real(file);
    leave(action);
    return done;
}

/* The buffer that fclose would have written is lost when this write fails: the last block of the file goes. */
int fclose(FILE *file) {
    REAL(fclose);
    char path[1024];
    struct stat before;
    int class = watched() && fileno(file) >= 0 ? fd_class(fileno(file), path) : -1;
    if (class < 0 || (fcntl(fileno(file), F_GETFL) & O_ACCMODE) == O_RDONLY) return real(file);
    int action = enter(WRITE, class, path);
    if (action == FAIL || action == TORN) {
        int fails = fstat(fileno(file), &before);
        real(file);
        if (!fails) {
            REAL(truncate);
            (void)!real(path, before.st_size);
        }
        return refuse((int)control->err);
    }
    int done = real(file);
    leave(action);
    return done;
}

#define PLAIN(kind, class_, call) \
    char path[1024]; \
    int class = watched() ? (class_) : -1; \
    if (class < 0) return call; \
    int action = enter(kind, class, path); \
    if (action == FAIL || action == TORN) return refuse((int)control->err); \
    int done = call, kept = errno; \
    leave(action); \
    errno = kept; \
    return done

int fsync(int fd) {
    REAL(fsync);
    PLAIN(FSYNC, fd_class(fd, path), real(fd));
}

int fdatasync(int fd) {
    REAL(fdatasync);
    PLAIN(FSYNC, fd_class(fd, path), real(fd));
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    PLAIN(TRUNCATE, fd_class(fd, path), real(fd, length));
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    PLAIN(TRUNCATE, fd_class(fd, path), real(fd, length));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    PLAIN(RENAME, path_class(AT_FDCWD, to, path), real(from, to));
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    REAL(renameat);
    PLAIN(RENAME, path_class(to_dir, to, path), real(from_dir, from, to_dir, to));
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags) {
    REAL(renameat2);
    PLAIN(RENAME, path_class(to_dir, to, path), real(from_dir, from, to_dir, to, flags));
}

int unlink(const char *name) {
    REAL(unlink);
    PLAIN(REMOVE, path_class(AT_FDCWD, name, path), real(name));
}

int unlinkat(int dir, const char *name, int flags) {
    REAL(unlinkat);
    PLAIN(REMOVE, path_class(dir, name, path), real(dir, name, flags));
}

int rmdir(const char *name) {
    REAL(rmdir);
    PLAIN(REMOVE, path_class(AT_FDCWD, name, path), real(name));
}

int mkdir(const char *name, mode_t mode) {
    REAL(mkdir);
    PLAIN(CREATE, path_class(AT_FDCWD, name, path), real(name, mode));
}

static int creates(int dir, const char *name, int flags) {
    return (flags & O_CREAT) && syscall(SYS_faccessat, dir, name, F_OK) != 0;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPENER() \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = mode_of(flags, rest); \
    va_end(rest)

int open(const char *name, int flags, ...) {
    REAL(open);
    OPENER();
    PLAIN(CREATE, creates(AT_FDCWD, name, flags) ? path_class(AT_FDCWD, name, path) : -1, real(name, flags, mode));
}

int open64(const char *name, int flags, ...) {
    REAL(open64);
    OPENER();
    PLAIN(CREATE, creates(AT_FDCWD, name, flags) ? path_class(AT_FDCWD, name, path) : -1, real(name, flags, mode));
}

int openat(int dir, const char *name, int flags, ...) {
    REAL(openat);
    OPENER();
    PLAIN(CREATE, creates(dir, name, flags) ? path_class(dir, name, path) : -1, real(dir, name, flags, mode));
}

int openat64(int dir, const char *name, int flags, ...) {
    REAL(openat64);
    OPENER();
    PLAIN(CREATE, creates(dir, name, flags) ? path_class(dir, name, path) : -1, real(dir, name, flags, mode));
}

FILE *fopen(const char *name, const char *mode) {
    REAL(fopen);
    char path[1024];
    int class = watched() && mode[0] == 'w' ? path_class(AT_FDCWD, name, path) : -1;
    if (class < 0) return real(name, mode);
    int action = enter(CREATE, class, path);
    if (action == FAIL || action == TORN) return refuse((int)control->err), NULL;
    FILE *done = real(name, mode);
    leave(action);
    return done;
}

FILE *fopen64(const char *name, const char *mode) {
    REAL(fopen64);
    char path[1024];
    int class = watched() && mode[0] == 'w' ? path_class(AT_FDCWD, name, path) : -1;
    if (class < 0) return real(name, mode);
    int action = enter(CREATE, class, path);
    if (action == FAIL || action == TORN) return refuse((int)control->err), NULL;
    FILE *done = real(name, mode);
    leave(action);
    return done;
}
