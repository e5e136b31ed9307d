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

/* What becomes of a kernel's own order on activations that share bytes (eq_rows_s8_ref.c). Words lie
 * apart from all else. */
static inline uint32_t eq_order(const eq_kernel_t *kernel, const eq_tensor_record_t *in,
                                const eq_tensor_record_t *out)
{
    if (eq_is_wide(in) || eq_is_wide(out)) {
        return EQ_ORDER_NONE;
    }
    if (!eq_reads_bytes(kernel) || (!eq_is_packed(in) && !eq_is_packed(out))) {
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

/* The rows or columns of the input under a window, skipped ones too: first .. end, not below 0. */
typedef struct {
    int32_t first;
    int32_t end;
} eq_cover_t;

EQ_NOINLINE static eq_cover_t eq_cover(const eq_operator_t *op, const eq_tensor_record_t *in,
                                       uint32_t axis, uint32_t i)
{
    const int32_t size = (int32_t)in->shape[axis];
    const int32_t taps = axis == 0 ? op->kernel_height : op->kernel_width;
    const int32_t stride = axis == 0 ? op->stride_height : op->stride_width;
    const int32_t dilation = axis == 0 ? op->dilation_height : op->dilation_width;
    const int32_t start = (int32_t)i * stride - (axis == 0 ? op->pad_top : op->pad_left);
    const eq_cover_t cover = {eq_clamp(start, 0, size),
                              eq_clamp(start + (taps - 1) * dilation + 1, 0, size)};
    return cover;
}

/* log2 of the values in a byte. */
static inline uint32_t eq_packing(const eq_tensor_record_t *tensor)
{
    return eq_width(tensor->bits) == 8 ? 0 : eq_width(tensor->bits) == 4 ? 1 : 2;
}

/*
 * How many values a row's output gets beyond the first one that it still reads of a row, or
 * -EQ_NEVER. The last value of a row is written when all else is read. Pixel by pixel the most that
 * lie before a pixel count, less those before the first that it reads; where what a pixel needs is
 * read before it is written, pixel 0 has no say.
 */
static inline int32_t eq_ahead(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    if (eq_by_rows(order)) {
        const int alike = order == EQ_ORDER_CHANNELS && in->shape[2] == out->shape[2];
        return (int32_t)(eq_row(out) - (alike ? out->shape[2] : 1u));
    }
    int32_t ahead = -EQ_NEVER;
    const uint32_t columns = order < EQ_ORDER_BUFFERED ? out->shape[1] : 0;
    for (uint32_t x = order == EQ_ORDER_PIXELS ? 1 : 0; x < columns; x++) {
        const int32_t first = eq_cover(op, in, 1, x).first;
        const int32_t here = (int32_t)(x * out->shape[2]) - first * (int32_t)in->shape[2];
        ahead = first < (int32_t)in->shape[1] && here > ahead ? here : ahead;
    }
    return ahead;
}

/* Where an output may lie over its input, as overlap.py has it. */
typedef struct {
    int32_t before; /* input's start − output's, at least: rows are written from the first */
    int32_t after;  /* output's start − input's, at least: from the last, rows of bytes only */
} eq_lag_t;

static inline eq_lag_t eq_lag(uint32_t order, const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out)
{
    const int32_t row_in = (int32_t)eq_row(in);
    const int32_t row_out = (int32_t)eq_row(out);
    const uint32_t shift_in = eq_packing(in);
    const uint32_t shift_out = eq_packing(out);
    const int32_t up = (1 << shift_out) - 1;
    const int32_t ahead = eq_ahead(order, op, in, out);
    const int once = order == EQ_ORDER_RING && op->dilation_height == 1;
    const int32_t columns = eq_cover(op, in, 1, out->shape[1] - 1).end;
    const int32_t unread = ((int32_t)in->shape[1] - columns) * (int32_t)in->shape[2]; /* of a row */
    eq_lag_t lag = {eq_by_rows(order) ? 0 : -EQ_NEVER, 1}; /* the side decides (eq_run_rows) */
    eq_cover_t next = eq_cover(op, in, 0, 0);
    for (uint32_t y = 0; y < out->shape[0]; y++) {
        const eq_cover_t cover = next;
        const int32_t at = row_out * (int32_t)y;
        next = eq_cover(op, in, 0, y + 1);
        const int32_t needed = once && cover.end > next.first ? cover.end : next.first;
        int32_t here = -EQ_NEVER;
        if (y + 1 < out->shape[0] && needed < (int32_t)in->shape[0]) { /* by later rows */
            here = ((at + row_out + up) >> shift_out) - (needed * row_in >> shift_in);
        }
        lag.before = here > lag.before ? here : lag.before;
        if (ahead != -EQ_NEVER && cover.first < cover.end) {
            here = ((at + ahead + up) >> shift_out) - (cover.first * row_in >> shift_in);
            lag.before = here > lag.before ? here : lag.before;
        }
        here = cover.end * row_in - at - unread;
        lag.after = here > lag.after ? here : lag.after;
    }
    return lag;
}

/* Whether the output of an operator with a window, whose kernel is of that order, lies well. */
static inline int eq_lies_over(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int32_t behind = (int32_t)out->offset - (int32_t)in->offset;
    const eq_lag_t lag = eq_lag(order, op, in, out);
    return order != EQ_ORDER_NONE &&
           (lag.before <= -behind || (eq_by_rows(order) && lag.after <= behind));
}

#endif
