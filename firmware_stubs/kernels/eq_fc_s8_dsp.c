/*
 * Fully connected, int8, weights of 2..8 bits, with SMLAD.
 */
#include "eq_dsp.h"
#include "eq_unpack.h"

void eq_fc_s8_dsp(const eq_call_t *call)
{
    const uint32_t count = eq_elements(call->in[0]);
    for (uint32_t channel = 0; channel < call->out->shape[2]; channel++) {
        const int8_t *row = eq_weight_row(call, channel, count);
        const eq_stage_t stage = eq_stage(call, channel);
        const int32_t sum =
            eq_dot_dsp(row, call->input[0], (int32_t)count, call->in[0]->zero_point, stage.bias);
        call->output[channel] = eq_finish(&stage, sum);
    }
}
