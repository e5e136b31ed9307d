/*
 * Depthwise convolution, int8, weights of 2..8 bits, with SMLAD: four channels at once, two taps
 * an instruction. Taps outside the input read the zero point. What does not come in fours, or has a
 * channel multiplier, goes one channel at a time.
 */
#include "eq_depthwise.h"
#include "eq_dsp.h"
#include "eq_unpack.h"

#define GROUP 4u

/* The taps of a window in their order, as addresses of the four channels' values. */
typedef struct {
    const int8_t *input; /* of the first channel */
    const int8_t *outside;
    const eq_operator_t *op;
    int32_t height;
    int32_t width;
    int32_t channels;
    int32_t left;
    int32_t y;
    int32_t x;
    int32_t kx;
} taps_t;

static inline const int8_t *next_tap(taps_t *taps)
{
    const int inside = taps->y >= 0 && taps->y < taps->height && taps->x >= 0 &&
                       taps->x < taps->width;
    const int8_t *values =
        inside ? taps->input + (taps->y * taps->width + taps->x) * taps->channels : taps->outside;
    taps->x += taps->op->dilation_width;
    taps->kx++;
    if (taps->kx == taps->op->kernel_width) {
        taps->kx = 0;
        taps->x = taps->left;
        taps->y += taps->op->dilation_height;
    }
    return values;
}

/* Four channels of `count` weights to pairs of taps: word 4·(k / 2) + channel. */
static void widen_group(const eq_call_t *call, uint32_t channel, uint32_t count)
{
    uint32_t *pairs = call->scratch;
    for (uint32_t k = 0; k < count; k += 2) {
        for (uint32_t i = 0; i < GROUP; i++) {
            int8_t pair[2] = {0, 0};
            eq_unpack(pair, call->weights, (channel + i) * count + k, k + 1 < count ? 2 : 1,
                      call->op->weight_bits);
            *pairs++ = eq_pack_low((uint32_t)pair[0], (uint32_t)pair[1]);
        }
    }
}

static inline void add_pair(const uint32_t *pairs, uint32_t offset, uint32_t first, uint32_t second,
                            int32_t sums[GROUP])
{
    const uint32_t first_even = eq_sxtab16(offset, first);
    const uint32_t first_odd = eq_sxtab16_odd(offset, first);
    const uint32_t second_even = eq_sxtab16(offset, second);
    const uint32_t second_odd = eq_sxtab16_odd(offset, second);
    sums[0] = eq_smlad(pairs[0], eq_pack_low(first_even, second_even), sums[0]);
    sums[1] = eq_smlad(pairs[1], eq_pack_low(first_odd, second_odd), sums[1]);
    sums[2] = eq_smlad(pairs[2], eq_pack_high(first_even, second_even), sums[2]);
    sums[3] = eq_smlad(pairs[3], eq_pack_high(first_odd, second_odd), sums[3]);
}

static void four_channels(const eq_call_t *call, uint32_t channel, uint32_t count)
{
    const uint32_t *shape = call->out->shape;
    const eq_operator_t *op = call->op;
    const int8_t zero = (int8_t)call->in[0]->zero_point;
    const int8_t outside[GROUP] = {zero, zero, zero, zero};
    const uint32_t offset = eq_pair(-zero);
    const eq_stage_t stages[GROUP] = {eq_stage(call, channel), eq_stage(call, channel + 1),
                                      eq_stage(call, channel + 2), eq_stage(call, channel + 3)};
    taps_t taps = {.input = call->input[0] + channel,
                   .outside = outside,
                   .op = op,
                   .height = (int32_t)call->in[0]->shape[0],
                   .width = (int32_t)call->in[0]->shape[1],
                   .channels = (int32_t)call->in[0]->shape[2]};
    int8_t *output = call->output + channel;
    widen_group(call, channel, count);
    for (uint32_t y = 0; y < shape[0]; y++) {
        for (uint32_t x = 0; x < shape[1]; x++) {
            const uint32_t *pairs = call->scratch;
            int32_t sums[GROUP] = {stages[0].bias, stages[1].bias, stages[2].bias, stages[3].bias};
            taps.left = (int32_t)x * op->stride_width - op->pad_left;
            taps.x = taps.left;
            taps.y = (int32_t)y * op->stride_height - op->pad_top;
            taps.kx = 0;
            for (uint32_t k = 0; k < count; k += 2) {
                const uint32_t first = eq_load_quad(next_tap(&taps));
                const uint32_t second = k + 1 < count ? eq_load_quad(next_tap(&taps)) : first;
                add_pair(pairs, offset, first, second, sums);
                pairs += GROUP;
            }
            for (uint32_t i = 0; i < GROUP; i++) {
                output[i] = eq_finish(&stages[i], sums[i]);
            }
            output += shape[2];
        }
    }
}

void eq_depthwise_s8_dsp(const eq_call_t *call)
{
    const uint32_t channels = call->out->shape[2];
    const uint32_t count = (uint32_t)call->op->kernel_height * call->op->kernel_width;
    uint32_t channel = 0;
    if (channels == call->in[0]->shape[2]) {
        for (; channels - channel >= GROUP; channel += GROUP) {
            four_channels(call, channel, count);
        }
    }
    for (; channel < channels; channel++) {
        eq_depthwise_channel(call, channel);
    }
}
