/*
 * call.c - a test program as a function: an emulator loads it where it lies, and calls `device_test`.
 * What it prints stays in memory. newlib allocates from the heap that the linker's `end` begins.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_TEXT 8192u

int main(int argc, char **argv);

extern char end[]; /* of what is linked */
extern char device_heap_end[];

char device_argument[16]; /* of the program; empty: none */
char device_text[MOST_TEXT];

int32_t device_test(void);
void harness_stop(void);
void _init(void);
void _fini(void);
void _exit(int status);
int _write(int file, const char *bytes, int count);
void *_sbrk(ptrdiff_t bytes);
int _close(int file);
int _fstat(int file, struct stat *state);
int _isatty(int file);
int _lseek(int file, int offset, int whence);
int _read(int file, char *bytes, int count);
int _kill(int process, int signal);
int _getpid(void);

int32_t device_test(void)
{
    char name[] = "test";
    char *arguments[] = {name, device_argument, NULL};
    const int32_t status = main(device_argument[0] != '\0' ? 2 : 1, arguments);
    (void)fflush(stdout);
    return status;
}

void harness_stop(void)
{
    for (;;) {
    }
}

void _init(void)
{
}

void _fini(void)
{
}

void _exit(int status)
{
    (void)status;
    harness_stop();
}

int _write(int file, const char *bytes, int count)
{
    static uint32_t used;
    (void)file;
    for (int i = 0; i < count && used < MOST_TEXT - 1; i++) {
        device_text[used++] = bytes[i];
    }
    return count;
}

void *_sbrk(ptrdiff_t bytes)
{
    static char *top = end;
    if (bytes > device_heap_end - top) {
        return (void *)-1;
    }
    top += bytes;
    return top - bytes;
}

int _close(int file)
{
    return -file;
}

int _fstat(int file, struct stat *state)
{
    (void)file;
    state->st_mode = S_IFCHR;
    return 0;
}

int _isatty(int file)
{
    return file >= 0;
}

int _lseek(int file, int offset, int whence)
{
    return file * offset * whence;
}

int _read(int file, char *bytes, int count)
{
    (void)bytes;
    return file < 0 ? count : 0;
}

int _kill(int process, int signal)
{
    return process < 0 ? signal : 0;
}

int _getpid(void)
{
    return 1;
}
