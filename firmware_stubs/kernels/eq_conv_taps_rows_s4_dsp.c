/*
 * Convolution of 3×3 on packed activations, stride 1, weights in the layout "taps_rows".
 */
#include "eq_taps.h"

static uint64_t scratch_bytes(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count)
{
    (void)op;
    (void)count;
    return eq_taps_scratch(&eq_taps_rows, in, out);
}

static int fits(const eq_call_t *call, uint32_t count)
{
    (void)count;
    return eq_taps_fits(&eq_taps_rows, call);
}

const eq_layout_rules_t eq_taps_rows_rules = {
    EQ_LAYOUT_TAPS_ROWS, 1, eq_taps_weight_bytes, eq_taps_table_bytes, scratch_bytes, fits, NULL};

void eq_conv_taps_rows_s4_dsp(const eq_call_t *call)
{
    eq_taps_run(&eq_taps_rows, call);
}
