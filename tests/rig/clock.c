/* A wrong clock for every program of one host: the time of day is SHIFT_S later, timers run as ever. To be named in
 * the host's /etc/ld.so.preload. Whoever waits until a time of day must wait until the kernel's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define A_TIME_OF_DAY 1000000000 /* monotonic clocks count from the boot and stay below */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += SHIFT_S;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
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

static struct timespec kernels(const struct timespec *until)
{
    struct timespec shifted = *until;
    if (shifted.tv_sec > A_TIME_OF_DAY)
        shifted.tv_sec -= SHIFT_S;
    return shifted;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
    static __typeof__(&pthread_cond_timedwait) next;
    struct timespec real = kernels(until);
    if (!next) /* on amd64 there are two, and dlsym alone would find that of 1999 */
        next = (__typeof__(next))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        next = NEXT(pthread_cond_timedwait);
    return next(cond, mutex, &real);
}

int sem_timedwait(sem_t *sem, const struct timespec *until)
{
    struct timespec real = kernels(until);
    return NEXT(sem_timedwait)(sem, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until)
{
    struct timespec real = kernels(until);
    return NEXT(pthread_mutex_timedlock)(mutex, &real);
}
