/*
 * lanes.h - weights and tables of the layouts "lanes" and "sixes", packed plainly from what
 * eq_lanes.h says; and a hand-made image with an operator of each kernel.
 */
#ifndef LANES_H
#define LANES_H

#include "eq_lanes.h"
#include "pairs.h"

/* Where the field of a channel begins in the words of a pair: rotated right, it is at 0 or `apart`. */
static uint32_t lane_field(uint32_t bits, int six, uint32_t k, uint32_t channel, uint32_t *word)
{
    static const uint32_t rotations[] = {4, 6, 12, 14, 20, 22, 28, 30};
    const uint32_t apart = six ? 30 : 28;
    const uint32_t right = six ? 4 * (k % 8) + 2 : bits == 2 ? rotations[k % 8] : 8 * (k % 4) + 4;
    *word = bits == 2 ? k / 8 : k / 4;
    return (right + channel * apart) % 32;
}

static uint32_t lane_row_words(const layer_t *layer)
{
    return padded(layer->count, 8) / (layer->op.weight_bits == 2 ? 8 : 4);
}

static uint32_t *pack_lanes(const layer_t *layer, int six, uint32_t *words)
{
    const uint32_t bits = layer->op.weight_bits, row = lane_row_words(layer);
    const uint32_t pairs = (layer->out.shape[2] + 1) / 2;
    *words = row * pairs;
    uint32_t *packed = exact_block(*words * sizeof *packed);
    for (uint32_t i = 0; i < *words; i++) {
        packed[i] = 0;
    }
    for (uint32_t channel = 0; channel < layer->out.shape[2]; channel++) {
        for (uint32_t k = 0; k < layer->count; k++) {
            uint32_t word;
            const uint32_t at = lane_field(bits, six, k, channel % 2, &word);
            const int32_t w = weight(layer, channel, k) + (1 << (bits - 1));
            packed[channel / 2 * row + word] |= (uint32_t)w << at;
        }
    }
    return packed;
}

/* `units` of a segment. */
static int32_t *pack_lane_tables(const layer_t *layer, int six, uint32_t units)
{
    const uint32_t channels = layer->out.shape[2];
    const int32_t least = -(1 << (eq_width(layer->in.bits) - 1u));
    int32_t *tables = exact_block((padded(channels, 2) * EQ_LANES_WORDS + 3) * sizeof *tables);
    int32_t start = 0;
    for (uint32_t c = 0; c < channels && six; c++) {
        int32_t below = 0;
        for (uint32_t k = 0; k < layer->count; k++) {
            const int32_t w = weight(layer, c, k);
            below += w < 0 ? -3 * w : 0;
        }
        start = below > start ? below : start;
    }
    tables[EQ_LANES_START] = start;
    tables[EQ_LANES_ANY] = 0;
    tables[EQ_LANES_UNITS] = (int32_t)units;
    for (uint32_t c = 0; c < padded(channels, 2); c++) {
        int32_t *stage = tables + EQ_LANES_HEADER + EQ_LANES_WORDS * c;
        const int32_t shift = c < channels ? layer->shift[c] : 0;
        const int32_t right = shift < 0 ? -shift : 0, left = shift > 0 ? shift : 0;
        int64_t sum = c < channels ? layer->bias[c] : 0;
        for (uint32_t k = 0; k < layer->count; k++) {
            sum += (int64_t)weight(layer, c, k) * (least - layer->in.zero_point);
        }
        const int64_t addend =
            (INT64_C(1) << right) / 2 + layer->out.zero_point * (INT64_C(1) << right);
        stage[EQ_LANES_SUM] = (int32_t)(uint32_t)(uint64_t)(2 * (sum - start));
        stage[EQ_LANES_MULTIPLIER] = c < channels ? layer->multiplier[c] : 0;
        stage[EQ_LANES_ADDEND] = (int32_t)(uint32_t)(uint64_t)addend;
        tables[EQ_LANES_ANY] |= right == 0;
        stage[EQ_LANES_SHIFT] = right + left * 256 + (right == 0 ? EQ_LANES_EXACT : 0);
    }
    return tables;
}

/// An image ///

/* Indices of its operators; its tensors have the same, beginning with the input. */
enum { OP_CONV_LANES, OP_CONV_SIXES, OP_FC_LANES, OP_CONV_WIDE };

static void add_lane_layer(model_t *m, uint16_t kernel, uint16_t input, uint16_t output,
                           uint8_t bits, uint32_t units)
{
    const eq_layout_rules_t *rules = eq_kernel_find(kernel)->rules;
    eq_operator_t *op = add_operator(m, kernel, input, output);
    if (kernel != 61) {
        set_window(op, 1, 1, 1, 0);
    }
    op->weight_bits = bits;
    op->layout = rules->layout;
    layer_t layer = {.op = *op, .in = m->tensors[input], .out = m->tensors[output]};
    layer.count = kernel == 61 ? eq_elements(&layer.in) : layer.in.shape[2];
    layer.weights = exact_block(layer.count * layer.out.shape[2]);
    const int32_t high = (1 << (bits - 1)) - 1;
    for (uint32_t i = 0; i < layer.count * layer.out.shape[2]; i++) {
        layer.weights[i] = (int8_t)random_in(&m->random, -high - 1, high);
    }
    for (uint32_t c = 0; c < layer.out.shape[2]; c++) {
        layer.bias[c] = random_in(&m->random, -100, 100);
        layer.multiplier[c] = (1 << 30) + (int32_t)(random_next(&m->random) >> 2);
        layer.shift[c] = (int8_t)(c == 3 ? 0 : -bits);
    }
    uint32_t words;
    uint32_t *weights = pack_lanes(&layer, rules->layout == EQ_LAYOUT_SIXES, &words);
    int32_t *tables = pack_lane_tables(&layer, rules->layout == EQ_LAYOUT_SIXES, units);
    op->weights = align8(m->count[EQ_SECTION_WEIGHTS]);
    memcpy(m->weights + op->weights, weights, words * sizeof *weights);
    m->count[EQ_SECTION_WEIGHTS] = op->weights + words * (uint32_t)sizeof *weights;
    op->bias = add_words(m, (layer.out.shape[2] + 1) / 2 * 2 * EQ_LANES_WORDS + 3, tables);
    op->scratch_bytes = (uint32_t)rules->scratch_bytes(op, &layer.in, &layer.out, layer.count);
    op->scratch = align8(m->arena_bytes);
    m->arena_bytes = op->scratch + op->scratch_bytes;
    free(weights);
    free(tables);
    free(layer.weights);
}

static image_t lanes_image(void)
{
    model_t *m = exact_block(sizeof *m);
    m->random = 20261125u;
    const uint16_t image = add_packed(m, 4, 3, 3, 40, 4);
    const uint16_t quarters = add_packed(m, 4, 3, 3, 12, 2);
    const uint16_t more = add_packed(m, 4, 3, 3, 8, 2);
    const uint16_t logits = add_tensor(m, 2, 1, 1, 5);
    const uint16_t wide = add_tensor(m, 4, 3, 3, 6);
    add_lane_layer(m, 60, image, quarters, 4, 4); /* two segments */
    add_lane_layer(m, 62, quarters, more, 2, 2);
    add_lane_layer(m, 61, more, logits, 3, 9);
    add_lane_layer(m, 60, quarters, wide, 2, 2);
    const eq_port_t ports[] = {{image, 0}, {logits, 1}, {wide, 1}};
    return block_image(m, ports, 3);
}

#endif
