/*
 * Fully connected, int8, weights of 8 bits in the layout "pairs".
 */
#include "eq_pairs.h"

void eq_fc_pairs_s8_dsp(const eq_call_t *call)
{
    eq_pixel_t pixel;
    eq_pairs_pixel(&pixel, call);
    eq_pairs_run_stored(&pixel.call, pixel.in.shape[2]);
}
