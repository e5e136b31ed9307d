/*
 * vectors.c - what a test program needs to start on QEMU's mps2-an386 (a Cortex-M4 with RAM at 0):
 * newlib's start-up code does the rest and prints by semihosting.
 */
#include <stdint.h>

void _start(void);

typedef union {
    void (*handler)(void);
    uintptr_t stack;
} vector_t;

extern const vector_t vectors[16];
const vector_t vectors[16] __attribute__((section(".vectors"), used)) = {
    {.stack = 0x00400000}, /* the end of that RAM */
    {.handler = _start},
};
