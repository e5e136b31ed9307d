/*
 * Two tensors joined along an axis, one or more of 16 bits, in portable C. Each goes to the output's
 * scale as in TensorFlow Lite's QUANTIZE.
 */
#include "eq_wide.h"

/* Elements in a row: the axis and all behind it. */
static uint32_t run_of(const eq_tensor_record_t *tensor, uint32_t axis)
{
    uint32_t run = 1;
    for (uint32_t i = axis; i < 3; i++) {
        run *= tensor->shape[i];
    }
    return run;
}

/* Row `row` of input k to values `at` and on of the output; returns where the next begins. */
static uint32_t append(const eq_call_t *call, uint32_t k, uint32_t row, uint32_t at)
{
    const eq_tensor_record_t *in = call->in[k];
    const uint32_t run = run_of(in, call->op->parameter);
    const int32_t zero_out = call->out->zero_point;
    for (uint32_t i = row * run; i < (row + 1) * run; i++) {
        const int32_t difference = eq_load(in, call->input[k], i) - in->zero_point;
        const int32_t value =
            eq_requantize(difference, call->multiplier[k], eq_shift(call->shift[k]));
        eq_put(call->out, call->output, at++,
               eq_clamp(value, call->op->clamp_min - zero_out, call->op->clamp_max - zero_out) +
                   zero_out);
    }
    return at;
}

void eq_concat_s16_ref(const eq_call_t *call)
{
    uint32_t at = 0;
    for (uint32_t row = 0; at < eq_elements(call->out); row++) {
        at = append(call, 0, row, at);
        at = append(call, 1, row, at);
    }
}
