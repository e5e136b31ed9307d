/*
 * Convolution, int8, weights of 2..8 bits, in portable C. A channel's weights are unpacked once and
 * then meet every pixel. Padding contributes nothing: only taps inside the input are summed.
 */
#include "eq_unpack.h"
#include "eq_window.h"

static int32_t window_sum(const eq_call_t *call, const int8_t *row, eq_span_t rows,
                          eq_span_t columns, int32_t sum)
{
    const eq_operator_t *op = call->op;
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        for (int32_t kx = columns.first; kx < columns.last; kx++) {
            const int32_t x = columns.start + kx * op->dilation_width;
            sum = eq_dot(row + (ky * op->kernel_width + kx) * channels,
                         call->input[0] + (y * width + x) * channels, channels,
                         call->in[0]->zero_point, sum);
        }
    }
    return sum;
}

static void run_rows(const eq_call_t *call, uint32_t first, uint32_t end)
{
    const uint32_t *shape = call->out->shape;
    const uint32_t count =
        (uint32_t)call->op->kernel_height * call->op->kernel_width * call->in[0]->shape[2];
    for (uint32_t channel = 0; channel < shape[2]; channel++) {
        const int8_t *row = eq_weight_row(call, channel, count);
        const eq_stage_t stage = eq_stage(call, channel);
        int8_t *output = call->output + first * shape[1] * shape[2] + channel;
        for (uint32_t y = first; y < end; y++) {
            const eq_span_t rows = eq_clip_rows(call, y);
            for (uint32_t x = 0; x < shape[1]; x++) {
                const eq_span_t columns = eq_clip_columns(call, x);
                *output = eq_finish(&stage, window_sum(call, row, rows, columns, stage.bias));
                output += shape[2];
            }
        }
    }
}

void eq_conv_s8_ref(const eq_call_t *call)
{
    eq_run_rows(call, run_rows);
}
