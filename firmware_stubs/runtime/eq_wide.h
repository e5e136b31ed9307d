/*
 * eq_wide.h - what the kernels for 16-bit activations share. One operand or more of theirs has 16
 * bits; the others are bytes.
 */
#ifndef EQ_WIDE_H
#define EQ_WIDE_H

#include "eq_rows.h"
#include "eq_window.h"

/* Value i of an operand: what is packed in memory comes to a kernel as bytes. */
static inline int32_t eq_load(const eq_tensor_record_t *tensor, const int8_t *data, uint32_t i)
{
    return eq_is_wide(tensor) ? ((const int16_t *)(const void *)data)[i] : data[i];
}

static inline void eq_put(const eq_tensor_record_t *tensor, int8_t *data, uint32_t i, int32_t value)
{
    if (eq_is_wide(tensor)) {
        ((int16_t *)(void *)data)[i] = (int16_t)value;
    } else {
        data[i] = (int8_t)value;
    }
}

/* sum + Σ weights[i] · (value first + i − zero point) */
static inline int64_t eq_wide_dot(const eq_call_t *call, const int8_t *weights, uint32_t first,
                                  uint32_t count, int64_t sum)
{
    const eq_tensor_record_t *in = call->in[0];
    if (eq_is_wide(in)) { /* its zero point is 0 */
        const int16_t *values = (const int16_t *)(const void *)call->input[0] + first;
        for (uint32_t i = 0; i < count; i++) {
            sum += weights[i] * values[i];
        }
        return sum;
    }
    return eq_dot(weights, call->input[0] + first, (int32_t)count, in->zero_point, (int32_t)sum);
}

/* The rule is the input's: one rounding for 16 bits, two for bytes, whose sums fit int32. */
static inline int32_t eq_wide_finish(const eq_call_t *call, const eq_stage_t *stage, int64_t sum)
{
    const int32_t value = eq_is_wide(call->in[0])
                              ? eq_requantize_wide(sum, stage->multiplier, stage->shift)
                              : eq_requantize((int32_t)sum, stage->multiplier, stage->shift);
    return eq_clamp(value, stage->low, stage->high) + stage->zero_point;
}

/* `first` is the input channel at which the group of `depth` channels begins. */
static inline int64_t eq_wide_window(const eq_call_t *call, const int8_t *row, uint32_t first,
                                     uint32_t depth, eq_span_t rows, eq_span_t columns, int64_t sum)
{
    const eq_operator_t *op = call->op;
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        for (int32_t kx = columns.first; kx < columns.last; kx++) {
            const int32_t x = columns.start + kx * op->dilation_width;
            sum = eq_wide_dot(call, row + (uint32_t)(ky * op->kernel_width + kx) * depth,
                              (uint32_t)((y * width + x) * channels) + first, depth, sum);
        }
    }
    return sum;
}

/* Convolution in groups of channels: one group is a plain one, one for each channel depthwise. */
static inline void eq_wide_conv(const eq_call_t *call, uint32_t groups)
{
    const uint32_t *shape = call->out->shape;
    const uint32_t depth = call->in[0]->shape[2] / groups;
    const uint32_t filters = shape[2] / groups;
    const uint32_t count = (uint32_t)call->op->kernel_height * call->op->kernel_width * depth;
    for (uint32_t channel = 0; channel < shape[2]; channel++) {
        const int8_t *row = eq_weight_row(call, channel, count);
        const uint32_t first = channel / filters * depth;
        const eq_stage_t stage = eq_stage(call, channel);
        uint32_t at = channel;
        for (uint32_t y = 0; y < shape[0]; y++) {
            const eq_span_t rows = eq_clip_rows(call, y);
            for (uint32_t x = 0; x < shape[1]; x++) {
                const eq_span_t columns = eq_clip_columns(call, x);
                const int64_t sum =
                    eq_wide_window(call, row, first, depth, rows, columns, stage.bias);
                eq_put(call->out, call->output, at, eq_wide_finish(call, &stage, sum));
                at += shape[2];
            }
        }
    }
}

#endif
