/*
 * Mean over windows, int8, four channels at a time with SXTAB16. Padding is not counted; eq_init has
 * seen to it that every window holds an input.
 */
#include "eq_dsp.h"
#include "eq_window.h"

#define MOST_TAPS 255 /* that an int16 sums */

/* Sums of the channels 0 and 2, 1 and 3. */
typedef struct {
    uint32_t even;
    uint32_t odd;
} pairs_t;

static inline pairs_t add_taps(pairs_t pairs, const int8_t *from, int32_t step, int32_t count)
{
    for (; count > 0; count--) {
        const uint32_t quad = eq_load_quad(from);
        pairs.even = eq_sxtab16(pairs.even, quad);
        pairs.odd = eq_sxtab16_odd(pairs.odd, quad);
        from += step;
    }
    return pairs;
}

static inline void flush(pairs_t pairs, int32_t sums[4])
{
    sums[0] += (int16_t)pairs.even;
    sums[1] += (int16_t)pairs.odd;
    sums[2] += (int16_t)(pairs.even >> 16);
    sums[3] += (int16_t)(pairs.odd >> 16);
}

static void sum_four(const eq_patch_t *patch, const int8_t *at, int32_t sums[4])
{
    pairs_t pairs = {0, 0};
    int32_t free = MOST_TAPS;
    for (int32_t y = 0; y < patch->rows; y++) {
        const int8_t *from = at;
        for (int32_t left = patch->columns; left > 0;) {
            const int32_t count = left < free ? left : free;
            pairs = add_taps(pairs, from, patch->step, count);
            from += count * patch->step;
            left -= count;
            free -= count;
            if (free == 0) {
                flush(pairs, sums);
                pairs.even = pairs.odd = 0;
                free = MOST_TAPS;
            }
        }
        at += patch->row;
    }
    flush(pairs, sums);
}

static int32_t sum_one(const eq_patch_t *patch, const int8_t *at)
{
    int32_t sum = 0;
    for (int32_t y = 0; y < patch->rows; y++) {
        for (int32_t x = 0; x < patch->columns; x++) {
            sum += at[y * patch->row + x * patch->step];
        }
    }
    return sum;
}

static void mean_of_window(const eq_patch_t *patch, int8_t *output)
{
    const int32_t count = patch->rows * patch->columns;
    int32_t channel = 0;
    for (; patch->step - channel >= 4; channel += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        sum_four(patch, patch->first + channel, sums);
        for (uint32_t i = 0; i < 4; i++) {
            *output++ = (int8_t)eq_round_away_divide(sums[i], count);
        }
    }
    for (; channel < patch->step; channel++) {
        *output++ = (int8_t)eq_round_away_divide(sum_one(patch, patch->first + channel), count);
    }
}

/* Rows that are taken whole are one long one. */
static eq_patch_t joined(eq_patch_t patch)
{
    if (patch.columns * patch.step == patch.row) {
        patch.columns *= patch.rows;
        patch.rows = 1;
    }
    return patch;
}

void eq_average_pool_s8_dsp(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    int8_t *output = call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        const eq_span_t rows = eq_clip_rows(call, y);
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_patch_t patch = joined(eq_patch(call, rows, eq_clip_columns(call, x)));
            mean_of_window(&patch, output);
            output += shape[2];
        }
    }
    eq_clamp_bytes(call->output, eq_elements(call->out), call->op->clamp_min, call->op->clamp_max);
}
