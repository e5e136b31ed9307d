/*
 * Depthwise convolution, int8, weights of 2..8 bits, any channel multiplier, in portable C.
 */
#include "eq_depthwise.h"

static void run_rows(const eq_call_t *call, uint32_t first, uint32_t end)
{
    int8_t *output = call->output + first * eq_row(call->out);
    for (uint32_t channel = 0; channel < call->out->shape[2]; channel++) {
        eq_depthwise_channel(call, channel, first, end, output);
    }
}

void eq_depthwise_s8_ref(const eq_call_t *call)
{
    eq_run_rows(call, run_rows);
}
