/*
 * eq_selftest_main.h - included at the end of selftest.c, after #define EQ_SELFTEST_ARENA_BYTES.
 *
 * On a host it makes selftest.c a program: a line for each case that fails, a last line
 * "N passed, M failed", exit status 0 or 1. For a device it is empty: firmware has its own main.
 */
#ifndef EQ_SELFTEST_MAIN_H
#define EQ_SELFTEST_MAIN_H

#include "eq_selftest.h"

#if __STDC_HOSTED__ && (defined(__unix__) || defined(__APPLE__) || defined(_WIN32))

#include <stdio.h>

static void print_fault(const eq_selftest_t *tables, const eq_selftest_fault_t *fault)
{
    if (fault->status != EQ_OK) {
        printf("%s: case %lu: %s\n", tables->name, (unsigned long)fault->index,
               eq_status_name(fault->status));
    } else if (fault->output == EQ_SELFTEST_ROUTE) {
        printf("%s: case %lu: another exit, path or cost\n", tables->name,
               (unsigned long)fault->index);
    } else {
        printf("%s: case %lu: byte %lu of output %lu is %d, expected %d\n", tables->name,
               (unsigned long)fault->index, (unsigned long)fault->byte,
               (unsigned long)fault->output, fault->computed, fault->expected);
    }
}

int main(void)
{
    static uint8_t arena[EQ_SELFTEST_ARENA_BYTES] EQ_ALIGNED;
    static eq_ctx_t ctx;
    const uint32_t count = eq_selftest_tables.case_count;
    const uint32_t failed =
        eq_selftest(&eq_selftest_tables, &ctx, arena, sizeof arena, print_fault);
    printf("%s: %lu passed, %lu failed\n", eq_selftest_tables.name, (unsigned long)(count - failed),
           (unsigned long)failed);
    return failed == 0 && count > 0 ? 0 : 1;
}

#endif

#endif
