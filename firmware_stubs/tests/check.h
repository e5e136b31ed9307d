/*
 * check.h - what the C tests share: checks, a fixed random sequence, blocks of exact size.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long checks_made;
static unsigned long checks_failed;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        checks_made++;                                                                             \
        if (!(condition)) {                                                                        \
            checks_failed++;                                                                       \
            if (checks_failed <= 20) {                                                             \
                printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                             \
                printf(__VA_ARGS__);                                                               \
                printf("\n");                                                                      \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* The last line of a test's output, and its exit status. */
static inline int check_report(const char *name)
{
    printf("%s: %lu checks, %lu failed\n", name, checks_made, checks_failed);
    return checks_failed == 0 ? 0 : 1;
}

/* xorshift32 */
static inline uint32_t random_next(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* A value in [low, high]. */
static inline int32_t random_in(uint32_t *state, int32_t low, int32_t high)
{
    return low + (int32_t)(random_next(state) % (uint32_t)(high - low + 1));
}

static inline int32_t random_of(uint32_t *state, const int32_t *values, uint32_t count)
{
    return values[random_next(state) % count];
}

#define RANDOM_OF(state, ...)                                                                      \
    random_of(state, (const int32_t[]){__VA_ARGS__},                                               \
              sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* A block of exactly that size, so that a sanitizer sees one byte too far; never NULL. */
static inline void *exact_block(size_t bytes)
{
    void *block = calloc(1, bytes > 0 ? bytes : 1);
    if (block == NULL) {
        printf("out of memory\n");
        exit(1);
    }
    return block;
}

#endif
