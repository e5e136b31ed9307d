/*
 * eq_depthwise.h - one channel of rows of a depthwise convolution: the portable kernel channel by
 * channel, and in the others what does not come in groups.
 */
#ifndef EQ_DEPTHWISE_H
#define EQ_DEPTHWISE_H

#include <stdint.h>

#include "eq_rows.h"
#include "eq_unpack.h"
#include "eq_window.h"

static inline int32_t eq_depthwise_sum(const eq_call_t *call, const int8_t *row,
                                       const int8_t *input, eq_span_t rows, eq_span_t columns,
                                       int32_t sum)
{
    const eq_operator_t *op = call->op;
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        for (int32_t kx = columns.first; kx < columns.last; kx++) {
            const int32_t x = columns.start + kx * op->dilation_width;
            sum += row[ky * op->kernel_width + kx] *
                   (input[(y * width + x) * channels] - call->in[0]->zero_point);
        }
    }
    return sum;
}

/* Output channel o reads input channel o / multiplier. `output` is where row `first` goes. */
static inline void eq_depthwise_channel(const eq_call_t *call, uint32_t channel, uint32_t first,
                                        uint32_t end, int8_t *output)
{
    const uint32_t *shape = call->out->shape;
    const uint32_t multiplier = shape[2] / call->in[0]->shape[2];
    const uint32_t count = (uint32_t)call->op->kernel_height * call->op->kernel_width;
    const int8_t *row = eq_weight_row(call, channel, count);
    const int8_t *input = call->input[0] + channel / multiplier;
    const eq_stage_t stage = eq_stage(call, channel);
    output += channel;
    for (uint32_t y = first; y < end; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_span_t columns = eq_clip_columns(call, x);
            const int32_t sum = eq_depthwise_sum(call, row, input, rows, columns, stage.bias);
            *output = eq_finish(&stage, sum);
            output += shape[2];
        }
    }
}

#endif
