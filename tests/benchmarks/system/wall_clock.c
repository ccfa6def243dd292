/* Moves the wall clock of a process and its children by the seconds that a file says.
 *
 * For LD_PRELOAD. ROOTSTOCK_TEST_CLOCK names a file whose first eight bytes are the seconds, a
 * signed integer in the machine's byte order; whoever writes there moves the clock at once. The
 * monotonic clock stays, as it does when a machine's clock is set. libfaketime 0.9.10 cannot leave
 * it: with FAKETIME_DONT_FAKE_MONOTONIC every time.sleep of Python 3.11 fails with EINVAL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("ROOTSTOCK_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        moved = page;
    close(file);
}

static int64_t seconds(void) { return moved ? *moved : 0; }

/* What the kernel is to wait for: its own clock has not moved. */
static struct timespec unmoved(const struct timespec *until)
{
    struct timespec own = *until;
    own.tv_sec -= seconds();
    if (own.tv_sec < 0)
        own.tv_sec = 0;
    return own;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = NEXT(clock_gettime);
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted,
                    struct timespec *left)
{
    struct timespec own = *wanted;
    if (clock == CLOCK_REALTIME && (flags & TIMER_ABSTIME))
        own = unmoved(wanted);
    return NEXT(clock_nanosleep)(clock, flags, &own, left);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec own = unmoved(until);
    return NEXT(sem_timedwait)(semaphore, &own);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    /* A condition may be on the monotonic clock, whose times are small: those stay. */
    static const time_t years = 30L * 365 * 24 * 3600;
    struct timespec own = until->tv_sec > years ? unmoved(until) : *until;
    return NEXT(pthread_cond_timedwait)(condition, mutex, &own);
}

/* Abseil, below gRPC and Ray, waits by the system call itself. */
long syscall(long number, ...)
{
    long word[6];
    va_list words;
    va_start(words, number);
    for (int i = 0; i < 6; i++)
        word[i] = va_arg(words, long);
    va_end(words);
    struct timespec own;
    if (number == SYS_futex && word[3] && (word[1] & FUTEX_CLOCK_REALTIME)) {
        own = unmoved((const struct timespec *)word[3]);
        word[3] = (long)&own;
    }
    return NEXT(syscall)(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}
