/*
 * Fully connected, int8, weights of 2..7 bits in the layout "fields".
 */
#include "eq_fields.h"

void eq_fc_fields_s8_dsp(const eq_call_t *call)
{
    eq_pixel_t pixel;
    eq_pairs_pixel(&pixel, call);
    eq_fields_run(&pixel.call, pixel.in.shape[2]);
}
