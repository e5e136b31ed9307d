/*
 * fast.h - a third hand-made image: the kernels for additions, depthwise convolutions, pools and
 * tables on cores with the DSP extension; for test_fast.c and fuzz_image.c.
 */
#ifndef FAST_H
#define FAST_H

#include "model.h"

/* Indices of its operators. */
enum {
    OP_WINDOWS,
    OP_AFFINE,
    OP_TABLES,
    OP_STRIDED,
    OP_MAXIMUM,
    OP_MEAN,
    OP_NARROW,
    OP_LEVEL,
    FAST_OPERATORS
};

/* Indices of its tensors. */
enum {
    FAST_IMAGE,
    FAST_WINDOWS,
    FAST_SUM,
    FAST_STRIDED,
    FAST_MAXIMUM,
    FAST_MEAN,
    FAST_NARROW,
    FAST_LEVEL
};

static uint16_t add_fast_tensor(model_t *m, uint32_t height, uint32_t width, uint8_t bits)
{
    return bits == 8 ? add_tensor(m, 4, height, width, 6)
                     : add_packed(m, 4, height, width, 6, bits);
}

/* Weights of 8 bits in planes of 4, 2 and 2, filled up to 32 of them. */
static void add_planes(model_t *m, eq_operator_t *op, uint32_t count)
{
    const uint32_t weights = m->tensors[op->output].shape[2] * count;
    add_weights(m, op, count, 7); /* whose rows take scratch */
    op->weight_bits = 8;
    op->layout = EQ_LAYOUT_PLANES;
    op->parameter = 1u << 7 | 1u << 5 | 1u << 3;
    m->count[EQ_SECTION_WEIGHTS] = op->weights;
    for (uint32_t i = 0; i < (weights + 31) / 32 * 32; i++) {
        m->weights[m->count[EQ_SECTION_WEIGHTS]++] = (uint8_t)random_next(&m->random);
    }
}

static void add_fast_operators(model_t *m, uint8_t bits)
{
    static const int32_t affine[] = {300000000, -200000000, 20000000};
    const uint16_t image = add_fast_tensor(m, 7, 6, bits);
    const uint16_t windows = add_fast_tensor(m, 7, 6, bits);
    const uint16_t sum = add_fast_tensor(m, 7, 6, bits);
    const uint16_t strided = add_fast_tensor(m, 4, 3, bits);
    const uint16_t maximum = add_fast_tensor(m, 3, 2, bits);
    const uint16_t mean = add_fast_tensor(m, 1, 1, bits);
    const uint16_t narrow = add_packed(m, 4, 4, 3, 6, bits == 8 ? 3 : 2);
    const uint16_t level = add_fast_tensor(m, 4, 3, bits);
    eq_operator_t *op = add_operator(m, 52, image, windows);
    set_window(op, 3, 1, 1, 1);
    add_weights(m, op, 9, 4);
    op = add_operator(m, 51, image, windows); /* in place */
    op->input[1] = windows;
    op->multiplier = add_words(m, 3, affine);
    op = add_operator(m, 50, windows, sum);
    op->input[1] = image;
    add_scales(m, op, 3, 0);
    m->tables[op->shift + 2] = (uint8_t)-19;
    add_scratch(m, op, EQ_TABLES_BYTES);
    op = add_operator(m, 52, sum, strided);
    set_window(op, 3, 2, 1, 1);
    add_weights(m, op, 9, 8);
    op = add_operator(m, 53, strided, maximum);
    set_window(op, 2, 1, 1, 0);
    add_scratch(m, op, 0);
    m->tensors[maximum].zero_point = m->tensors[strided].zero_point;
    op = add_operator(m, 54, maximum, mean);
    op->kernel_height = 3;
    op->kernel_width = 2;
    op->stride_height = op->stride_width = op->dilation_height = op->dilation_width = 1;
    add_scratch(m, op, 0);
    m->tensors[mean].zero_point = m->tensors[maximum].zero_point;
    op = add_operator(m, 80, strided, narrow);
    op->shift = add_bytes(m, 256, 0);
    for (uint32_t i = 0; i < 256; i++) {
        m->tables[op->shift + i] = (uint8_t)random_in(&m->random, op->clamp_min, op->clamp_max);
    }
    op = add_operator(m, 1, strided, level);
    set_window(op, 1, 1, 1, 0);
    add_planes(m, op, 6);
}

/* Activations of 8 bits, or packed. */
static image_t fast_image(uint8_t bits)
{
    static const eq_port_t ports[] = {
        {FAST_IMAGE, 0}, {FAST_MEAN, 1}, {FAST_SUM, 1}, {FAST_STRIDED, 1}, {FAST_NARROW, 1}};
    model_t *m = exact_block(sizeof *m);
    m->random = 20261121u;
    add_fast_operators(m, bits);
    return block_image(m, ports, sizeof ports / sizeof ports[0]);
}

#endif
