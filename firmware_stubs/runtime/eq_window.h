/*
 * eq_window.h - where a sliding window meets the input.
 */
#ifndef EQ_WINDOW_H
#define EQ_WINDOW_H

#include <stdint.h>

#include "eq_kernel.h"

/* One axis of a window: where its tap 0 lies, and which taps [first, last) lie inside the input. */
typedef struct {
    int32_t start;
    int32_t first;
    int32_t last;
} eq_span_t;

static inline eq_span_t eq_clip(int32_t start, int32_t taps, int32_t dilation, int32_t size)
{
    eq_span_t span = {start, 0, taps};
    while (span.first < taps && start + span.first * dilation < 0) {
        span.first++;
    }
    while (span.last > span.first && start + (span.last - 1) * dilation >= size) {
        span.last--;
    }
    return span;
}

static inline eq_span_t eq_clip_rows(const eq_call_t *call, uint32_t y)
{
    const eq_operator_t *op = call->op;
    return eq_clip((int32_t)y * op->stride_height - op->pad_top, op->kernel_height,
                   op->dilation_height, (int32_t)call->in[0]->shape[0]);
}

/* Whether the output shares no byte with the first input; both have 8 bits a value. */
int eq_lies_apart(const eq_call_t *call);

/* A part of a kernel: computes rows first .. end of the output. */
typedef void (*eq_rows_function_t)(const eq_call_t *call, uint32_t first, uint32_t end);

/*
 * All rows at once, so that a channel's weights are fetched once; or one by one where the output
 * lies over the input, from the side on which it lies (EQ_ORDER_ROWS).
 */
void eq_run_rows(const eq_call_t *call, eq_rows_function_t run);

static inline eq_span_t eq_clip_columns(const eq_call_t *call, uint32_t x)
{
    const eq_operator_t *op = call->op;
    return eq_clip((int32_t)x * op->stride_width - op->pad_left, op->kernel_width,
                   op->dilation_width, (int32_t)call->in[0]->shape[1]);
}

/* The part of a pool's window that lies inside the input; taps of pools lie side by side. */
typedef struct {
    const int8_t *first; /* of its first channel */
    int32_t rows;
    int32_t columns;
    int32_t step; /* from column to column: the channels */
    int32_t row;  /* from row to row */
} eq_patch_t;

static inline eq_patch_t eq_patch(const eq_call_t *call, uint32_t y, uint32_t x)
{
    const eq_operator_t *op = call->op;
    const int32_t height = (int32_t)call->in[0]->shape[0];
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t step = (int32_t)call->in[0]->shape[2];
    const int32_t up = (int32_t)y * op->stride_height - op->pad_top;
    const int32_t left = (int32_t)x * op->stride_width - op->pad_left;
    const int32_t top = up > 0 ? up : 0;
    const int32_t start = left > 0 ? left : 0;
    const int32_t down = up + op->kernel_height;
    const int32_t right = left + op->kernel_width;
    const eq_patch_t patch = {call->input[0] + (top * width + start) * step,
                              (down < height ? down : height) - top,
                              (right < width ? right : width) - start, step, width * step};
    return patch;
}

#endif
