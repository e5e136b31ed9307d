/*
 * Mean over windows, int8: sixteen channels at a time with SXTAB16, where an int16 holds their sums;
 * else four or one. Padding is not counted; eq_init has seen to it that every window holds an input.
 */
#include "eq_dsp.h"
#include "eq_window.h"

#define MOST_TAPS 255 /* that an int16 sums */
#define FRACTION 14   /* bits below the point of a mean */

/* Sums of the channels 0 and 2, 1 and 3 of a quad. */
typedef struct {
    uint32_t even;
    uint32_t odd;
} pairs_t;

static inline pairs_t add_quad(pairs_t pairs, uint32_t quad)
{
    pairs.even = eq_sxtab16(pairs.even, quad);
    pairs.odd = eq_sxtab16_odd(pairs.odd, quad);
    return pairs;
}

static void sum_sixteen(const eq_patch_t *patch, const int8_t *at, pairs_t sums[4])
{
    pairs_t a = {0, 0}, b = a, c = a, d = a;
    const int32_t next = patch->step - 16;
    int32_t rows = patch->rows;
    do {
        int32_t columns = patch->columns;
        do {
            eq_quads_t quads = eq_next_quads(&at);
            a = add_quad(a, quads.first);
            b = add_quad(b, quads.second);
            quads = eq_next_quads(&at);
            c = add_quad(c, quads.first);
            d = add_quad(d, quads.second);
            at += next;
        } while (--columns != 0);
        at += patch->row - patch->columns * patch->step;
    } while (--rows != 0);
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

/*
 * Of n taps: the sum times 2^30 / n, rounded down and one more, which is off by less than half a step
 * and away from zero; so what lies halfway goes there, and nothing else crosses the half.
 */
EQ_NOINLINE static void mean_of_sixteen(const eq_patch_t *patch, const int8_t *at, int32_t taps,
                                        int8_t *output)
{
    const int32_t half = 1 << (FRACTION - 1);
    const int32_t reciprocal = (1 << (FRACTION + 16)) / taps + 1;
    pairs_t sums[4];
    sum_sixteen(patch, at, sums);
    for (const pairs_t *from = sums; from < sums + 4; from++) {
        *output++ = (int8_t)(eq_smlawb(reciprocal, from->even, half) >> FRACTION);
        *output++ = (int8_t)(eq_smlawb(reciprocal, from->odd, half) >> FRACTION);
        *output++ = (int8_t)(eq_smlawt(reciprocal, from->even, half) >> FRACTION);
        *output++ = (int8_t)(eq_smlawt(reciprocal, from->odd, half) >> FRACTION);
    }
}

/* Of four channels, or of one. */
EQ_NOINLINE static void mean_of_some(const eq_patch_t *patch, const int8_t *at, int32_t taps,
                                     int32_t channels, int8_t *output)
{
    int32_t a = 0, b = 0, c = 0, d = 0;
    const int32_t step = patch->step;
    int32_t rows = patch->rows;
    do {
        const int8_t *from = at;
        int32_t columns = patch->columns;
        if (channels == 4) {
            do {
                const uint32_t quad = eq_load_quad(from);
                a += (int8_t)quad;
                b += (int8_t)(quad >> 8);
                c += (int8_t)(quad >> 16);
                d += (int8_t)(quad >> 24);
                from += step;
            } while (--columns != 0);
        } else {
            do {
                a += *from;
                from += step;
            } while (--columns != 0);
        }
        at += patch->row;
    } while (--rows != 0);
    const int32_t sums[4] = {a, b, c, d};
    for (int32_t i = 0; i < channels; i++) {
        output[i] = (int8_t)eq_round_away_divide(sums[i], taps);
    }
}

static void mean_of_window(const eq_patch_t *patch, int8_t *output)
{
    const int32_t taps = patch->rows * patch->columns;
    const int words = ((uintptr_t)patch->first | (uint32_t)patch->step) % 4 == 0;
    int32_t channel = 0;
    while (channel < patch->step) {
        const int8_t *at = patch->first + channel;
        const int32_t left = patch->step - channel;
        int32_t channels = left >= 4 ? 4 : 1;
        if (words && taps <= MOST_TAPS && left >= 16) {
            channels = 16;
            mean_of_sixteen(patch, at, taps, output);
        } else {
            mean_of_some(patch, at, taps, channels, output);
        }
        channel += channels;
        output += channels;
    }
}

void eq_average_pool_s8_dsp(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    int8_t *output = call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        for (uint32_t x = 0; x < shape[1]; x++) {
            const eq_patch_t patch = eq_patch(call, y, x);
            mean_of_window(&patch, output);
            output += shape[2];
        }
    }
    eq_clamp_bytes(call->output, eq_elements(call->out), call->op->clamp_min, call->op->clamp_max);
}
