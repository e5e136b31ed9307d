/*
 * Fully connected, int8, weights of nested levels in the layout "field_planes".
 */
#include "eq_fields.h"

void eq_fc_field_planes_s8_dsp(const eq_call_t *call)
{
    eq_pixel_t pixel;
    eq_pairs_pixel(&pixel, call);
    eq_field_planes_run(&pixel.call, pixel.in.shape[2]);
}
