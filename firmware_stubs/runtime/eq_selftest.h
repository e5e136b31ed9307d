/*
 * eq_selftest.h - golden vectors against what this core computes.
 *
 * selftest.c is generated and holds tables only; the logic is in eq_selftest.c. On a host the last
 * line of selftest.c makes it a program (eq_selftest_main.h); firmware calls eq_selftest itself.
 */
#ifndef EQ_SELFTEST_H
#define EQ_SELFTEST_H

#include <stdint.h>

#include "edgeq.h"

typedef struct {
    /* Per input: raw uint8 where the input has a lookup table, else its bytes; row-major. */
    const void *inputs[EQ_MAX_PORTS];
    const int8_t *outputs[EQ_MAX_PORTS]; /* the bytes of each */
    uint32_t exit;                       /* of eq_result_t, of a model with gates; so are these: */
    uint32_t path;
    uint32_t cost; /* 0: without gates */
} eq_selftest_case_t;

/*
 * NAME_input_lut, raw to int8, or int16 for an input of 16 bits: [channels][256], or one row for all
 * channels. NULL: no table.
 */
typedef struct {
    const void *table;
    uint32_t channels;
} eq_selftest_lut_t;

typedef struct {
    const char *name; /* of the model */
    const void *image;
    uint32_t image_bytes;
    eq_selftest_lut_t input_luts[EQ_MAX_PORTS];
    const eq_selftest_case_t *cases;
    uint32_t case_count;
} eq_selftest_t;

/* In selftest.c. */
extern const eq_selftest_t eq_selftest_tables;

/* In place of an output: the input took another way. */
#define EQ_SELFTEST_ROUTE EQ_MAX_PORTS

/* The first difference of a case that failed. */
typedef struct {
    uint32_t index;     /* of the case */
    eq_status_t status; /* of eq_init or eq_run; where it is EQ_OK, the values differ: */
    uint32_t output;
    uint32_t byte;
    int8_t expected;
    int8_t computed;
} eq_selftest_fault_t;

/* Told about each case that fails. */
typedef void (*eq_selftest_report_t)(const eq_selftest_t *tables, const eq_selftest_fault_t *fault);

/*
 * How many cases fail; all of them where eq_init refuses the image. The arena is the caller's, and
 * report may be NULL.
 */
uint32_t eq_selftest(const eq_selftest_t *tables, eq_ctx_t *ctx, void *arena, uint32_t arena_bytes,
                     eq_selftest_report_t report);

#endif
