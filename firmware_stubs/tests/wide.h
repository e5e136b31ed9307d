/*
 * wide.h - a third hand-made image: every kernel for 16-bit activations, some with bytes or packed
 * values beside them; for test_wide.c and fuzz_image.c.
 */
#ifndef WIDE_H
#define WIDE_H

#include "model.h"

/* Indices of its operators. */
enum {
    WIDE_CONV,
    WIDE_DEPTHWISE,
    WIDE_ADD,
    WIDE_MAX_POOL,
    WIDE_AVERAGE_POOL,
    WIDE_GROUPED,
    WIDE_CONCAT,
    WIDE_PAD,
    WIDE_TO_PACKED,
    WIDE_FC,
    WIDE_OPERATORS
};

/* Indices of its tensors; those without a number have 16 bits. */
enum {
    T_IMAGE,
    T_CONV,
    T_SUM,
    T_LARGEST,
    T_MEAN,
    T_GROUPED_8,
    T_JOINED,
    T_PADDED,
    T_PACKED_4,
    T_SCORES
};

static uint16_t add_bits(model_t *m, uint8_t rank, uint32_t height, uint32_t width,
                         uint32_t channels, uint8_t bits)
{
    const uint16_t index = add_packed(m, rank, height, width, channels, bits);
    if (bits == 16) {
        m->tensors[index].zero_point = 0;
    }
    return index;
}

static void add_wide_operators(model_t *m)
{
    static const int32_t value[] = {-3000};
    (void)add_bits(m, 4, 4, 5, 3, 16);
    (void)add_bits(m, 4, 4, 5, 4, 16);
    (void)add_bits(m, 4, 4, 5, 4, 16);
    (void)add_bits(m, 4, 2, 2, 4, 16);
    (void)add_bits(m, 4, 2, 2, 4, 16);
    (void)add_bits(m, 4, 2, 2, 4, 8);
    (void)add_bits(m, 4, 2, 2, 8, 16);
    (void)add_bits(m, 4, 3, 4, 9, 16);
    (void)add_bits(m, 4, 2, 2, 3, 4);
    (void)add_bits(m, 2, 1, 1, 6, 16);
    eq_operator_t *op = add_operator(m, 40, T_IMAGE, T_CONV);
    set_window(op, 3, 1, 1, 1);
    add_weights(m, op, 27, 4);
    op = add_operator(m, 41, T_CONV, T_SUM);
    set_window(op, 3, 1, 2, 2);
    add_weights(m, op, 9, 8);
    op = add_operator(m, 43, T_CONV, T_SUM); /* in place */
    op->input[1] = T_SUM;
    add_scales(m, op, 3, 0);
    m->tables[op->shift + 2] = (uint8_t)-14;
    op = add_operator(m, 44, T_SUM, T_LARGEST);
    set_window(op, 2, 2, 1, 0);
    op = add_operator(m, 45, T_SUM, T_MEAN);
    set_window(op, 2, 2, 1, 0);
    op = add_operator(m, 46, T_MEAN, T_GROUPED_8);
    set_window(op, 1, 1, 1, 0);
    op->parameter = 2;
    add_weights(m, op, 2, 7);
    op = add_operator(m, 48, T_LARGEST, T_JOINED);
    op->input[1] = T_GROUPED_8;
    op->parameter = 2;
    add_scales(m, op, 2, 0);
    op = add_operator(m, 47, T_JOINED, T_PADDED);
    op->pad_top = op->pad_left = op->parameter = 1;
    op->bias = add_words(m, 1, value);
    op = add_operator(m, 40, T_LARGEST, T_PACKED_4);
    set_window(op, 2, 1, 1, 0);
    op->pad_top = op->pad_left = 1;
    add_weights(m, op, 16, 3);
    op = add_operator(m, 42, T_PACKED_4, T_SCORES);
    add_weights(m, op, 12, 8);
}

static image_t wide_image(void)
{
    static const eq_port_t ports[] = {{T_IMAGE, 0}, {T_SCORES, 1}, {T_PADDED, 1}, {T_PACKED_4, 1}};
    model_t *m = exact_block(sizeof *m);
    m->random = 20261121u;
    add_wide_operators(m);
    return block_image(m, ports, sizeof ports / sizeof ports[0]);
}

#endif
