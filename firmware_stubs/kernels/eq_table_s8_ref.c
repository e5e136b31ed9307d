/*
 * A function of one int8 value by its 256 results, in portable C: sigmoid, hard swish and the like.
 * The output may be the input.
 */
#include "eq_kernel.h"

void eq_table_s8_ref(const eq_call_t *call)
{
    const int8_t *table = call->shift - INT8_MIN; /* table[q] for q from -128 */
    const int8_t *input = call->input[0];
    int8_t *output = call->output;
    const uint32_t count = eq_elements(call->out);
    for (uint32_t i = 0; i < count; i++) {
        output[i] = table[input[i]];
    }
}
