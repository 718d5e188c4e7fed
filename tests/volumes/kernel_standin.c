/* Loaded before the C library: /dev/zfs opens, and what is asked of it goes to a function that a test has set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

static int (*answer)(unsigned long request, void *command);

void standin_set(int (*function)(unsigned long, void *)) { answer = function; }

int open64(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return real(strcmp(path, "/dev/zfs") == 0 ? "/dev/null" : path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...) {
    int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *command = va_arg(rest, void *);
    va_end(rest);
    if (request >> 8 != 'Z' || answer == 0)
        return real(fd, request, command);
    int code = answer(request, command);
    if (code == 0)
        return 0;
    errno = code;
    return -1;
}
