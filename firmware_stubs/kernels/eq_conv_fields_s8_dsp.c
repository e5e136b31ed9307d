/*
 * Convolution, int8, weights of 2..7 bits in the layout "fields".
 */
#include "eq_fields.h"

void eq_conv_fields_s8_dsp(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const uint32_t count = (uint32_t)op->kernel_height * op->kernel_width * call->in[0]->shape[2];
    eq_fields_run(call, count);
}
