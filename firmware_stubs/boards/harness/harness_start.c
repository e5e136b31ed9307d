/*
 * harness_start.c - from a stack that works to main, on every core.
 */
#include <stdint.h>

#include "harness.h"

harness_fault_t harness_fault;

void harness_start(void)
{
    volatile uint32_t *to = __data_start; /* volatile: no call of memcpy or memset */
    for (const uint32_t *from = __data_load; to < __data_end; from++) {
        *to++ = *from;
    }
    for (to = __bss_start; to < __bss_end; to++) {
        *to = 0;
    }
    (void)main();
    harness_stop();
}
