/*
 * Padding with one value, int16, in portable C: rows, columns and channels before and after the
 * input. The value has the meaning of the input's integers.
 */
#include "eq_kernel.h"

/* Whether `at` lies in the input, which begins at `pad`; a position before it wraps around. */
static int inside(uint32_t at, uint32_t pad, uint32_t size)
{
    return at - pad < size;
}

void eq_pad_s16_ref(const eq_call_t *call)
{
    const uint32_t *shape = call->out->shape;
    const uint32_t *size = call->in[0]->shape;
    const uint32_t pads[3] = {call->op->pad_top, call->op->pad_left, call->op->parameter};
    const int16_t value = (int16_t)call->bias[0];
    const int16_t *input = (const void *)call->input[0]; /* its elements come in their order */
    int16_t *output = (void *)call->output;
    for (uint32_t y = 0; y < shape[0]; y++) {
        for (uint32_t x = 0; x < shape[1]; x++) {
            const int pixel = inside(y, pads[0], size[0]) && inside(x, pads[1], size[1]);
            for (uint32_t channel = 0; channel < shape[2]; channel++) {
                const int here = pixel && inside(channel, pads[2], size[2]);
                *output++ = here ? *input++ : value;
            }
        }
    }
}
