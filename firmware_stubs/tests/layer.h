/*
 * layer.h - a convolution or fully connected layer, and any kernel on it, for tests that compare the
 * kernels of a layout with the portable ones.
 */
#ifndef LAYER_H
#define LAYER_H

#include "model.h"

enum { MOST_CHANNELS = 12 };

typedef struct {
    eq_operator_t op;
    eq_tensor_record_t in;
    eq_tensor_record_t out;
    uint32_t count; /* weights of a channel */
    int fully_connected;
    int8_t *weights;
    int32_t bias[MOST_CHANNELS];
    int32_t multiplier[MOST_CHANNELS];
    int8_t shift[MOST_CHANNELS];
} layer_t;

/* A kernel on the layer, as eq_run has it, with so much scratch more than the least. */
static void run_layer_to(const eq_kernel_t *kernel, const layer_t *layer, const void *weights,
                         const int32_t *bias, const int8_t *input, uint32_t more, int8_t *output)
{
    eq_operator_t op = layer->op;
    const eq_tensor_record_t *in = &layer->in, *out = &layer->out;
    const int needs_rows = eq_reads_bytes(kernel) && (eq_is_packed(in) || eq_is_packed(out));
    const eq_rows_scratch_t rows = eq_rows_scratch(&op, kernel->family, in, in, out);
    const uint64_t unpacked = needs_rows ? rows.input + rows.output : 0;
    const uint64_t own = kernel->rules != NULL
                             ? kernel->rules->scratch_bytes(&op, in, out, layer->count)
                             : layer->count;
    op.scratch_bytes = (uint32_t)(unpacked + own) + more;
    op.weight_bits = kernel->rules != NULL ? op.weight_bits : 8;
    eq_call_t call = {.kernel = kernel,
                      .op = &op,
                      .in = {in, in},
                      .out = out,
                      .input = {input, input},
                      .output = output,
                      .weights = weights,
                      .bias = bias,
                      .multiplier = layer->multiplier,
                      .shift = layer->shift,
                      .scratch = exact_block(op.scratch_bytes)};
    memset(call.scratch, 0xA5, op.scratch_bytes);
    if (needs_rows) {
        eq_rows_s8_ref(&call);
    } else {
        kernel->run(&call);
    }
    free(call.scratch);
}

static int8_t *run_layer(const eq_kernel_t *kernel, const layer_t *layer, const void *weights,
                         const int32_t *bias, const int8_t *input, uint32_t more)
{
    int8_t *output = exact_block(eq_tensor_bytes(&layer->out));
    memset(output, 0x5A, eq_tensor_bytes(&layer->out));
    run_layer_to(kernel, layer, weights, bias, input, more, output);
    return output;
}

#endif
