/*
 * Depthwise convolution, int8, weights of 2..8 bits, with SXTAB16 and SMLAxy: four channels at
 * once. What does not come in fours, or has a channel multiplier, goes one channel at a time.
 */
#include "eq_depthwise.h"
#include "eq_dsp.h"

#define GROUP 4u

/* Per tap a pair of the channels 0 and 2 and one of 1 and 3, as SXTAB16 splits the input. */
static void widen_group(const eq_call_t *call, uint32_t channel, uint32_t taps)
{
    const uint32_t bits = call->op->weight_bits;
    uint32_t *pairs = call->scratch;
    for (uint32_t k = 0; k < taps; k++) {
        int8_t weight[GROUP];
        for (uint32_t i = 0; i < GROUP; i++) {
            const uint32_t index = (channel + i) * taps + k;
            if (bits == 8) { /* where the output lies over the input, this is done for every row */
                weight[i] = (int8_t)call->weights[index];
            } else {
                eq_unpack(&weight[i], call->weights, index, 1, bits);
            }
        }
        *pairs++ = eq_pack(weight[0], weight[2]);
        *pairs++ = eq_pack(weight[1], weight[3]);
    }
}

/* Adds a window of four channels to sums. */
static inline void add_window(const eq_call_t *call, const int8_t *input, eq_span_t rows,
                              eq_span_t columns, int32_t sums[GROUP])
{
    const eq_operator_t *op = call->op;
    const int32_t zero_point = call->in[0]->zero_point;
    const uint32_t offset = eq_pack(-zero_point, -zero_point);
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    const int32_t step = op->dilation_width * channels;
    int32_t sum_0 = sums[0], sum_1 = sums[1], sum_2 = sums[2], sum_3 = sums[3];
    for (int32_t ky = rows.first; ky < rows.last; ky++) {
        const int32_t y = rows.start + ky * op->dilation_height;
        const int32_t x = columns.start + columns.first * op->dilation_width;
        const uint32_t *pairs =
            (const uint32_t *)call->scratch + 2 * (ky * op->kernel_width + columns.first);
        int32_t at = (y * width + x) * channels;
        for (int32_t count = columns.last - columns.first; count > 0; count--) {
            const uint32_t quad = eq_load_quad(input + at);
            const uint32_t even = eq_sxtab16(offset, quad);
            const uint32_t odd = eq_sxtab16_odd(offset, quad);
            sum_0 = eq_smlabb(pairs[0], even, sum_0);
            sum_1 = eq_smlabb(pairs[1], odd, sum_1);
            sum_2 = eq_smlatt(pairs[0], even, sum_2);
            sum_3 = eq_smlatt(pairs[1], odd, sum_3);
            pairs += 2;
            at += step;
        }
    }
    sums[0] = sum_0;
    sums[1] = sum_1;
    sums[2] = sum_2;
    sums[3] = sum_3;
}

static void four_channels(const eq_call_t *call, uint32_t channel, uint32_t first, uint32_t end)
{
    const uint32_t *shape = call->out->shape;
    const int8_t *input = call->input[0] + channel;
    const eq_stage_t stages[GROUP] = {eq_stage(call, channel), eq_stage(call, channel + 1),
                                      eq_stage(call, channel + 2), eq_stage(call, channel + 3)};
    int8_t *output = call->output + first * shape[1] * shape[2] + channel;
    for (uint32_t y = first; y < end; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x++) {
            int32_t sums[GROUP] = {stages[0].bias, stages[1].bias, stages[2].bias, stages[3].bias};
            add_window(call, input, rows, eq_clip_columns(call, x), sums);
            for (uint32_t i = 0; i < GROUP; i++) {
                output[i] = eq_finish(&stages[i], sums[i]);
            }
            output += shape[2];
        }
    }
}

static void run_rows(const eq_call_t *call, uint32_t first, uint32_t end)
{
    const uint32_t channels = call->out->shape[2];
    const uint32_t taps = (uint32_t)call->op->kernel_height * call->op->kernel_width;
    uint32_t channel = 0;
    if (channels == call->in[0]->shape[2]) {
        for (; channels - channel >= GROUP; channel += GROUP) {
            widen_group(call, channel, taps);
            four_channels(call, channel, first, end);
        }
    }
    for (; channel < channels; channel++) {
        eq_depthwise_channel(call, channel, first, end, call->output + first * eq_row(call->out));
    }
}

void eq_depthwise_s8_dsp(const eq_call_t *call)
{
    eq_run_rows(call, run_rows);
}
