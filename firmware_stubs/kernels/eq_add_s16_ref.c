/*
 * Addition with 16-bit activations, in portable C (TensorFlow Lite's ADD of int16): as
 * eq_add_s8_ref, with 15 bits of head-room. The output may be either input.
 */
#include "eq_wide.h"

void eq_add_s16_ref(const eq_call_t *call)
{
    const int32_t zero_out = call->out->zero_point;
    const uint32_t count = eq_elements(call->out);
    for (uint32_t i = 0; i < count; i++) {
        int32_t sum = 0;
        for (uint32_t k = 0; k < 2; k++) {
            const int32_t value = eq_load(call->in[k], call->input[k], i);
            const int32_t wide = (value - call->in[k]->zero_point) * (1 << EQ_ADD_LEFT_SHIFT_WIDE);
            sum += eq_requantize(wide, call->multiplier[k], eq_shift(call->shift[k]));
        }
        const int32_t value = eq_requantize(sum, call->multiplier[2], eq_shift(call->shift[2]));
        eq_put(call->out, call->output, i,
               eq_clamp(value, call->op->clamp_min - zero_out, call->op->clamp_max - zero_out) +
                   zero_out);
    }
}
