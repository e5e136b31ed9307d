/*
 * Fully connected with 16-bit activations, weights of 2..8 bits, in portable C.
 */
#include "eq_wide.h"

void eq_fc_s16_ref(const eq_call_t *call)
{
    const uint32_t count = eq_elements(call->in[0]);
    for (uint32_t channel = 0; channel < call->out->shape[2]; channel++) {
        const int8_t *row = eq_weight_row(call, channel, count);
        const eq_stage_t stage = eq_stage(call, channel);
        const int64_t sum = eq_wide_dot(call, row, 0, count, stage.bias);
        eq_put(call->out, call->output, channel, eq_wide_finish(call, &stage, sum));
    }
}
