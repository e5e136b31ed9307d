/*
 * Depthwise convolution, int8, weights of 2..8 bits, any channel multiplier, in portable C.
 */
#include "eq_depthwise.h"

void eq_depthwise_s8_ref(const eq_call_t *call)
{
    for (uint32_t channel = 0; channel < call->out->shape[2]; channel++) {
        eq_depthwise_channel(call, channel);
    }
}
