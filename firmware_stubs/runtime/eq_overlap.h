/*
 * eq_overlap.h - how far an output may lie over the input that it is computed from.
 *
 * The order of a kernel says what it still reads of its input while it writes a row of its output.
 * From that follows the lag between where the two begin, in bytes; it may be negative. The twin,
 * which the planner asks, is overlap.py. Values and bytes are int32, as in an arena.
 */
#ifndef EQ_OVERLAP_H
#define EQ_OVERLAP_H

#include "eq_rows.h"

#define EQ_NEVER INT32_MAX /* behind every byte of an arena */

/* What becomes of a kernel's own order on activations that share bytes (eq_rows_s8_ref.c). */
static inline uint32_t eq_order(const eq_kernel_t *kernel, const eq_tensor_record_t *in,
                                const eq_tensor_record_t *out)
{
    if (!eq_is_packed(in) && !eq_is_packed(out)) {
        return kernel->order;
    }
    switch (kernel->family) {
    case EQ_FAMILY_CONV:
    case EQ_FAMILY_DEPTHWISE:
    case EQ_FAMILY_GROUPED:
        return eq_is_packed(in) ? EQ_ORDER_RING : EQ_ORDER_BUFFERED;
    default:
        return EQ_ORDER_NONE;
    }
}

/* Whether the rows are written from the side on which the output lies (eq_run_rows). */
static inline int eq_by_rows(uint32_t order)
{
    return order == EQ_ORDER_ROWS || order == EQ_ORDER_CHANNELS;
}

/* The rows or columns of the input under a window of an axis: first .. end; no less, if none. */
typedef struct {
    int32_t first;
    int32_t end;
} eq_cover_t;

EQ_NOINLINE static eq_cover_t eq_cover(int32_t start, int32_t taps, int32_t dilation, int32_t size)
{
    const int32_t first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    const int32_t inside = size > start ? (size - start + dilation - 1) / dilation : 0;
    const int32_t last = inside < taps ? inside : taps;
    const eq_cover_t cover = {start + first * dilation, start + (last - 1) * dilation + 1};
    const eq_cover_t none = {0, 0};
    return first < last ? cover : none;
}

static inline eq_cover_t eq_cover_rows(const eq_operator_t *op, const eq_tensor_record_t *in,
                                       uint32_t y)
{
    return eq_cover((int32_t)y * op->stride_height - op->pad_top, op->kernel_height,
                    op->dilation_height, (int32_t)in->shape[0]);
}

static inline eq_cover_t eq_cover_columns(const eq_operator_t *op, const eq_tensor_record_t *in,
                                          uint32_t x)
{
    return eq_cover((int32_t)x * op->stride_width - op->pad_left, op->kernel_width,
                    op->dilation_width, (int32_t)in->shape[1]);
}

/* log2 of the values in a byte. */
static inline uint32_t eq_packing(const eq_tensor_record_t *tensor)
{
    return eq_width(tensor->bits) == 8 ? 0 : eq_width(tensor->bits) == 4 ? 1 : 2;
}

/*
 * The most values that lie before a pixel of a row, less those before the first pixel that it or a
 * later one reads, or -EQ_NEVER. Where what a pixel needs is read before it is written, pixel 0 has
 * no say.
 */
static inline int32_t eq_pixels_ahead(uint32_t order, const eq_operator_t *op,
                                      const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const uint32_t end = order == EQ_ORDER_PIXELS ? 1 : 0;
    int32_t needed = EQ_NEVER;
    int32_t ahead = -EQ_NEVER;
    for (uint32_t x = out->shape[1]; x-- > end;) {
        const eq_cover_t cover = eq_cover_columns(op, in, x);
        const int32_t first = cover.first * (int32_t)in->shape[2];
        needed = cover.first < cover.end && first < needed ? first : needed;
        const int32_t here = (int32_t)(x * out->shape[2]) - needed;
        ahead = needed != EQ_NEVER && here > ahead ? here : ahead;
    }
    return ahead;
}

/*
 * How many values a row's output gets beyond the first one that it still reads of a row. The last
 * value of a row is written when all else is read.
 */
static inline int32_t eq_ahead(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    if (order >= EQ_ORDER_BUFFERED) {
        return -EQ_NEVER;
    }
    if (!eq_by_rows(order)) {
        return eq_pixels_ahead(order, op, in, out);
    }
    const int alike = order == EQ_ORDER_CHANNELS && in->shape[2] == out->shape[2];
    return (int32_t)(eq_row(out) - (alike ? out->shape[2] : 1u));
}

/* Input's start less output's, at least, where rows are written from the first to the last. */
static inline int32_t eq_lag_before(uint32_t order, const eq_operator_t *op,
                                    const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int32_t row_in = (int32_t)eq_row(in);
    const int32_t row_out = (int32_t)eq_row(out);
    const uint32_t shift_in = eq_packing(in);
    const uint32_t shift_out = eq_packing(out);
    const int32_t up = (1 << shift_out) - 1;
    const int32_t ahead = eq_ahead(order, op, in, out);
    int32_t needed = EQ_NEVER;                         /* the first byte that later rows read */
    int32_t least = eq_by_rows(order) ? 0 : -EQ_NEVER; /* 0: the side decides (eq_run_rows) */
    eq_cover_t next = eq_cover_rows(op, in, out->shape[0] - 1);
    for (int32_t y = (int32_t)out->shape[0] - 1; y >= 0; y--) {
        const eq_cover_t cover = next;
        next = eq_cover_rows(op, in, (uint32_t)y - 1u); /* before the first row: not used */
        const int once = order == EQ_ORDER_RING && op->dilation_height == 1 && y > 0;
        const int32_t first = once && next.end > cover.first ? next.end : cover.first;
        int32_t lag = ((row_out * (y + 1) + up) >> shift_out) - needed;
        least = lag > least ? lag : least;
        if (first < cover.end) { /* else all padding, or read before */
            const int32_t start = (first * row_in) >> shift_in;
            lag =
                ahead == -EQ_NEVER ? -EQ_NEVER : ((row_out * y + ahead + up) >> shift_out) - start;
            least = lag > least ? lag : least;
            needed = start < needed ? start : needed;
        }
    }
    return least;
}

/* Output's start less input's, at least, where rows of bytes are written from the last to the first. */
static inline int32_t eq_lag_after(const eq_operator_t *op, const eq_tensor_record_t *in,
                                   const eq_tensor_record_t *out)
{
    int32_t column = 0; /* the end of what is read of any row */
    for (uint32_t x = 0; x < out->shape[1]; x++) {
        const int32_t end = eq_cover_columns(op, in, x).end;
        column = end > column ? end : column;
    }
    const int32_t unread = ((int32_t)in->shape[1] - column) * (int32_t)in->shape[2];
    int32_t row = 0; /* the end of the rows that this row and those before it read */
    int32_t least = 1;
    for (uint32_t y = 0; y < out->shape[0]; y++) {
        const int32_t end = eq_cover_rows(op, in, y).end;
        row = end > row ? end : row;
        const int32_t lag = row * (int32_t)eq_row(in) - (int32_t)(y * eq_row(out)) - unread;
        least = lag > least ? lag : least;
    }
    return least;
}

/* Whether the output of an operator with a window, whose kernel is of that order, lies well. */
static inline int eq_lies_over(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int32_t behind = (int32_t)out->offset - (int32_t)in->offset;
    return (order != EQ_ORDER_NONE && eq_lag_before(order, op, in, out) <= -behind) ||
           (eq_by_rows(order) && eq_lag_after(op, in, out) <= behind);
}

#endif
