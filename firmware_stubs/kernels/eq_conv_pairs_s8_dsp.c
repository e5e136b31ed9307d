/*
 * Convolution, int8, weights of 8 bits in the layout "pairs".
 */
#include "eq_pairs.h"

void eq_conv_pairs_s8_dsp(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const uint32_t count = (uint32_t)op->kernel_height * op->kernel_width * call->in[0]->shape[2];
    eq_pairs_run_stored(call, count);
}
