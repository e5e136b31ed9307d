/*
 * Maximum over windows, int16, in portable C. Padding takes no part.
 */
#include "eq_window.h"

static int32_t window_maximum(const eq_call_t *call, const int16_t *input, eq_span_t rows,
                              eq_span_t columns)
{
    const int32_t width = (int32_t)call->in[0]->shape[1];
    const int32_t channels = (int32_t)call->in[0]->shape[2];
    int32_t best = INT16_MIN;
    for (int32_t y = rows.start + rows.first; y < rows.start + rows.last; y++) {
        for (int32_t x = columns.start + columns.first; x < columns.start + columns.last; x++) {
            const int32_t value = input[(y * width + x) * channels];
            best = value > best ? value : best;
        }
    }
    return best;
}

void eq_max_pool_s16_ref(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    const int16_t *input = (const void *)call->input[0];
    int16_t *output = (void *)call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_span_t columns = eq_clip_columns(call, x);
            for (uint32_t channel = 0; channel < shape[2]; channel++) {
                const int32_t best = window_maximum(call, input + channel, rows, columns);
                *output++ = (int16_t)eq_clamp(best, call->op->clamp_min, call->op->clamp_max);
            }
        }
    }
}
