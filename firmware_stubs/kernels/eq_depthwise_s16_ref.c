/*
 * Depthwise convolution with 16-bit activations, weights of 2..8 bits, any channel multiplier, in
 * portable C.
 */
#include "eq_wide.h"

void eq_depthwise_s16_ref(const eq_call_t *call)
{
    eq_wide_conv(call, call->in[0]->shape[2]);
}
