/*
 * Mean over windows, int16, in portable C. Padding is not counted; eq_init has seen to it that every
 * window holds an input.
 */
#include "eq_window.h"

static int32_t window_sum(const eq_call_t *call, const int16_t *input, eq_span_t rows,
                          eq_span_t columns)
{
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    int32_t sum = 0;
    for (int32_t y = rows.start + rows.first; y < rows.start + rows.last; y++) {
        for (int32_t x = columns.start + columns.first; x < columns.start + columns.last; x++) {
            sum += input[(y * width + x) * channels];
        }
    }
    return sum;
}

void eq_average_pool_s16_ref(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    const int16_t *input = (const void *)call->input[0];
    int16_t *output = (void *)call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_span_t columns = eq_clip_columns(call, x);
            const int32_t count = (rows.last - rows.first) * (columns.last - columns.first);
            for (uint32_t channel = 0; channel < shape[2]; channel++) {
                const int32_t sum = window_sum(call, input + channel, rows, columns);
                const int32_t mean = eq_round_away_divide(sum, count);
                *output++ = (int16_t)eq_clamp(mean, call->op->clamp_min, call->op->clamp_max);
            }
        }
    }
}
