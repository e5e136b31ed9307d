/*
 * eq_overlap.h - how far an output may lie over the input that it is computed from.
 *
 * The order of a kernel says what it still reads of its input while it writes a row of its output.
 * From that follows the lag between where the two begin, in bytes; it may be negative. The twin,
 * which the planner asks, is overlap.py.
 */
#ifndef EQ_OVERLAP_H
#define EQ_OVERLAP_H

#include "eq_rows.h"

#define EQ_NEVER (INT64_C(1) << 40) /* beyond every byte and every bit of an arena */

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

/* The rows or columns of the input under a window of an axis: first .. end, equal if none. */
typedef struct {
    int32_t first;
    int32_t end;
} eq_cover_t;

static inline eq_cover_t eq_cover(int32_t start, int32_t taps, int32_t dilation, uint32_t size)
{
    const int32_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const int32_t inside = ((int32_t)size - start + dilation - 1) / dilation;
    const int32_t last = inside < taps ? inside : taps;
    const eq_cover_t cover = {start + first * dilation, start + (last - 1) * dilation + 1};
    const eq_cover_t none = {0, 0};
    return start < (int32_t)size && first < last ? cover : none;
}

static inline eq_cover_t eq_cover_rows(const eq_operator_t *op, const eq_tensor_record_t *in,
                                       uint32_t y)
{
    return eq_cover((int32_t)y * op->stride_height - op->pad_top, op->kernel_height,
                    op->dilation_height, in->shape[0]);
}

static inline eq_cover_t eq_cover_columns(const eq_operator_t *op, const eq_tensor_record_t *in,
                                          uint32_t x)
{
    return eq_cover((int32_t)x * op->stride_width - op->pad_left, op->kernel_width,
                    op->dilation_width, in->shape[1]);
}

/* The end of the columns of the input that are read at all. */
static inline uint32_t eq_end_column(const eq_operator_t *op, const eq_tensor_record_t *in,
                                     const eq_tensor_record_t *out)
{
    int32_t end = 0;
    for (uint32_t x = 0; x < out->shape[1]; x++) {
        const int32_t here = eq_cover_columns(op, in, x).end;
        end = here > end ? here : end;
    }
    return (uint32_t)end;
}

/*
 * The most bits that lie before a pixel of a row, less those before the first pixel that it or a
 * later one reads. Where what a pixel needs is read before it is written, pixel 0 has no say.
 */
static inline int64_t eq_pixels_ahead(uint32_t order, const eq_operator_t *op,
                                      const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int64_t pixel_in = (int64_t)in->shape[2] * eq_width(in->bits);
    const int64_t pixel_out = (int64_t)out->shape[2] * eq_width(out->bits);
    int64_t needed = EQ_NEVER;
    int64_t ahead = -EQ_NEVER;
    const uint32_t end = order == EQ_ORDER_PIXELS ? 1 : 0;
    for (uint32_t x = out->shape[1]; x-- > end;) {
        const eq_cover_t cover = eq_cover_columns(op, in, x);
        if (cover.first < cover.end && cover.first * pixel_in < needed) {
            needed = cover.first * pixel_in;
        }
        const int64_t here = x * pixel_out - needed;
        ahead = here > ahead ? here : ahead;
    }
    return ahead;
}

/* How many bits a row's output gets beyond the first bit that it still reads of a row. The last value
 * of a row is written when all else is read. */
static inline int64_t eq_ahead(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int64_t row = (int64_t)eq_row(out) * eq_width(out->bits);
    if (order == EQ_ORDER_CHANNELS && in->shape[2] == out->shape[2]) {
        return row - (int64_t)out->shape[2] * eq_width(out->bits);
    }
    return eq_by_rows(order) ? row - eq_width(out->bits) : eq_pixels_ahead(order, op, in, out);
}

static inline int64_t eq_bytes_up(int64_t bits)
{
    return (bits + 7) >> 3; /* rounded up, below 0, too */
}

/* Input's start less output's, at least, where rows are written from the first to the last. */
static inline int64_t eq_lag_before(uint32_t order, const eq_operator_t *op,
                                    const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int64_t row_in = (int64_t)eq_row(in) * eq_width(in->bits);
    const int64_t row_out = (int64_t)eq_row(out) * eq_width(out->bits);
    const int64_t ahead = eq_ahead(order, op, in, out);
    const int reads_on = order < EQ_ORDER_BUFFERED;
    int64_t needed = EQ_NEVER;                         /* the first byte that later rows read */
    int64_t least = eq_by_rows(order) ? 0 : -EQ_NEVER; /* 0: the side decides (eq_run_rows) */
    for (uint32_t y = out->shape[0]; y-- > 0;) {
        const eq_cover_t cover = eq_cover_rows(op, in, y);
        const int once = order == EQ_ORDER_RING && op->dilation_height == 1 && y > 0;
        const int64_t read = once ? eq_cover_rows(op, in, y - 1).end : 0;
        const int64_t first = read > cover.first ? read : cover.first;
        int64_t lag = eq_bytes_up(row_out * (y + 1)) - needed;
        least = lag > least ? lag : least;
        if (first >= cover.end) {
            continue; /* all padding, or read before */
        }
        if (reads_on) {
            lag = eq_bytes_up(row_out * y + ahead) - (first * row_in >> 3);
            least = lag > least ? lag : least;
        }
        needed = first * row_in >> 3 < needed ? first * row_in >> 3 : needed;
    }
    return least;
}

/* Output's start less input's, at least, where rows of bytes are written from the last to the first. */
static inline int64_t eq_lag_after(const eq_operator_t *op, const eq_tensor_record_t *in,
                                   const eq_tensor_record_t *out)
{
    const int64_t unread = (int64_t)(in->shape[1] - eq_end_column(op, in, out)) * in->shape[2] *
                           (eq_width(in->bits) / 8u); /* of every row */
    int64_t end = 0; /* of the rows that this row and those before it read */
    int64_t least = -EQ_NEVER;
    for (uint32_t y = 0; y < out->shape[0]; y++) {
        const eq_cover_t cover = eq_cover_rows(op, in, y);
        end = cover.end > end ? cover.end : end;
        const int64_t lag = end * (int64_t)eq_row(in) - y * (int64_t)eq_row(out);
        least = lag > least ? lag : least;
    }
    return least - unread > 1 ? least - unread : 1;
}

/* Whether the output of an operator with a window, whose kernel is of that order, lies well. */
static inline int eq_lies_over(uint32_t order, const eq_operator_t *op,
                               const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int64_t from = in->offset;
    const int64_t to = out->offset;
    return (order != EQ_ORDER_NONE && to + eq_lag_before(order, op, in, out) <= from) ||
           (eq_by_rows(order) && to >= from + eq_lag_after(op, in, out));
}

#endif
