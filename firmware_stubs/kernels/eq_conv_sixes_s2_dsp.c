/*
 * Convolution 1×1 of activations and weights of 2 bits in the layout "sixes".
 */
#include "eq_lanes.h"

void eq_conv_sixes_s2_dsp(const eq_call_t *call)
{
    eq_sixes_run(call);
}
