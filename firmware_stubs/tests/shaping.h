/*
 * shaping.h - a second hand-made image: groups, pad, concat, table; for test_shaping.c and
 * fuzz_image.c.
 */
#ifndef SHAPING_H
#define SHAPING_H

#include "model.h"

/* Indices of its operators. */
enum { OP_GROUPED, OP_PAD, OP_CONCAT, OP_CONCAT_WIDTH, OP_TABLE };

/* Indices of its tensors. */
enum { IMAGE, GROUPED, PADDED, JOINED, WIDE, MAPPED };

static uint16_t add_any(model_t *m, uint32_t height, uint32_t width, uint32_t channels,
                        uint8_t bits)
{
    return bits == 8 ? add_tensor(m, 4, height, width, channels)
                     : add_packed(m, 4, height, width, channels, bits);
}

static void add_shaping(model_t *m, uint8_t bits)
{
    const uint16_t image = add_any(m, 3, 4, 6, bits);
    const uint16_t grouped = add_any(m, 3, 4, 4, bits);
    const uint16_t padded = add_any(m, 5, 5, 7, bits);
    const uint16_t joined = add_any(m, 3, 4, 10, bits);
    const uint16_t wide = add_any(m, 3, 8, 4, bits);
    const uint16_t mapped = add_any(m, 3, 4, 10, bits);
    static const int32_t value[] = {-7};
    static const int32_t multiplier[] = {1 << 30, 1500000000};
    eq_operator_t *op = add_operator(m, 20, image, grouped);
    set_window(op, 3, 1, 1, 1);
    op->parameter = 2;
    add_weights(m, op, 27, 5);
    op = add_operator(m, 21, grouped, padded);
    op->pad_top = 1;
    op->parameter = 2;
    op->bias = add_words(m, 1, value);
    add_scratch(m, op, 0);
    m->tensors[padded].zero_point = m->tensors[grouped].zero_point;
    for (uint16_t axis = 2; axis > 0; axis--) {
        op = add_operator(m, 22, grouped, axis == 2 ? joined : wide);
        op->input[1] = axis == 2 ? image : grouped;
        op->parameter = axis;
        op->multiplier = add_words(m, 2, multiplier);
        op->shift = add_bytes(m, 2, axis == 2 ? 1 : -1);
        add_scratch(m, op, 0);
    }
    op = add_operator(m, 23, joined, mapped); /* in place */
    op->shift = add_bytes(m, 256, 0);
    for (uint32_t i = 0; i < 256; i++) {
        m->tables[op->shift + i] = (uint8_t)random_next(&m->random);
    }
    m->tensors[mapped].offset = m->tensors[joined].offset;
}

/* Activations of 8 bits, or packed. */
static image_t shaping_image(uint8_t bits)
{
    static const eq_port_t ports[] = {{IMAGE, 0}, {MAPPED, 1}, {PADDED, 1}, {WIDE, 1}};
    model_t *m = exact_block(sizeof *m);
    m->random = 20261121u;
    add_shaping(m, bits);
    return block_image(m, ports, sizeof ports / sizeof ports[0]);
}

#endif
