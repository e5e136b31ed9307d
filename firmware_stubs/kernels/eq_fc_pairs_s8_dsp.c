/*
 * Fully connected, int8, weights of 2..8 bits in the layout "pairs": a convolution of one pixel.
 */
#include "eq_pairs.h"

void eq_fc_pairs_s8_dsp(const eq_call_t *call)
{
    eq_call_t pixel = *call;
    eq_operator_t op = *call->op;
    eq_tensor_record_t in = *call->in[0];
    op.kernel_height = op.kernel_width = 1;
    op.stride_height = op.stride_width = 1;
    op.dilation_height = op.dilation_width = 1;
    op.pad_top = op.pad_left = 0;
    in.shape[2] = eq_elements(&in);
    in.shape[0] = in.shape[1] = 1;
    pixel.op = &op;
    pixel.in[0] = &in;
    eq_pairs_run(&pixel, in.shape[2]);
}
