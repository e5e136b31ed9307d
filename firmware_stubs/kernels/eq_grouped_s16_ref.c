/*
 * Convolution in groups with 16-bit activations, weights of 2..8 bits, in portable C.
 */
#include "eq_wide.h"

void eq_grouped_s16_ref(const eq_call_t *call)
{
    eq_wide_conv(call, call->op->parameter);
}
