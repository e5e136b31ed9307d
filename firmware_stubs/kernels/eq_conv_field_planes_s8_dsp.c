/*
 * Convolution, int8, weights of nested levels in the layout "field_planes".
 */
#include "eq_fields.h"

void eq_conv_field_planes_s8_dsp(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const uint32_t count = (uint32_t)op->kernel_height * op->kernel_width * call->in[0]->shape[2];
    eq_field_planes_run(call, count);
}
