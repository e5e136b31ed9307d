/*
 * eq_window.c - the rows of an output, in the order that lets it lie over its input.
 */
#include "eq_window.h"

int eq_lies_apart(const eq_call_t *call)
{
    const uintptr_t input = (uintptr_t)call->input[0];
    const uintptr_t output = (uintptr_t)call->output;
    return output >= input + eq_elements(call->in[0]) || input >= output + eq_elements(call->out);
}

void eq_run_rows(const eq_call_t *call, eq_rows_function_t run)
{
    const uint32_t height = call->out->shape[0];
    const int behind = (uintptr_t)call->output > (uintptr_t)call->input[0];
    const int apart = eq_lies_apart(call);
    const uint32_t rows = apart ? height : 1;
    for (uint32_t done = 0; done < height; done += rows) {
        const uint32_t first = !apart && behind ? height - 1 - done : done;
        run(call, first, first + rows);
    }
}
