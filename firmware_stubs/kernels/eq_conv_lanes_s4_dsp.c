/*
 * Convolution 1×1 of packed activations, weights of 2..4 bits in the layout "lanes".
 */
#include "eq_lanes.h"

void eq_conv_lanes_s4_dsp(const eq_call_t *call)
{
    eq_lanes_run(call);
}
