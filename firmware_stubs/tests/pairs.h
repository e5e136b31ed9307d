/*
 * pairs.h - weights and tables of the layouts "pairs" and "fields", packed plainly from what
 * eq_pairs.h and eq_fields.h say; and a hand-made image with an operator of each kernel.
 */
#ifndef PAIRS_H
#define PAIRS_H

#include "eq_pairs.h"
#include "layer.h"

/// Packing ///

static int32_t weight(const layer_t *layer, uint32_t channel, uint32_t k)
{
    return channel < layer->out.shape[2] && k < layer->count
               ? layer->weights[channel * layer->count + k]
               : 0;
}

static uint32_t padded(uint32_t count, uint32_t step)
{
    return (count + step - 1) / step * step;
}

/* Word i of two channels. */
static uint32_t pair_word(const layer_t *layer, uint32_t pair, uint32_t i)
{
    uint32_t word = 0;
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t k = i / 2 * 4 + half * 2, channel = 2 * pair + i % 2;
        const int32_t h = 256 * weight(layer, channel, k + 1) + weight(layer, channel, k);
        word |= ((uint32_t)h & 0xFFFFu) << 16 * half;
    }
    return word;
}

static uint32_t row_words(const layer_t *layer)
{
    return layer->op.weight_bits == 8 ? padded(layer->count, 4) / 2
                                      : padded(layer->count, 16) / 16 * layer->op.weight_bits;
}

/* Bit b of byte `byte` of word j of a block: the word that has it, and where. */
static void place(uint32_t bits, uint32_t j, uint32_t byte, uint32_t b, uint32_t *word,
                  uint32_t *bit)
{
    uint32_t first = 0, low = 0, width = 4;
    while ((bits & width) == 0 || b >= low + width) {
        first += bits & width;
        low += bits & width;
        width /= 2;
    }
    *word = first + j / (8 / width);
    *bit = 8 * byte + j % (8 / width) * width + b - low;
}

static uint32_t *pack_weights(const layer_t *layer, uint32_t *words)
{
    const uint32_t bits = layer->op.weight_bits, pairs = (layer->out.shape[2] + 1) / 2;
    *words = row_words(layer) * pairs;
    uint32_t *packed = exact_block(*words * sizeof *packed);
    for (uint32_t pair = 0; pair < pairs; pair++) {
        uint32_t *row = packed + pair * row_words(layer);
        for (uint32_t i = 0; i < padded(layer->count, bits == 8 ? 4 : 16) / 2; i++) {
            if (bits == 8) {
                row[i] = pair_word(layer, pair, i);
                continue;
            }
            for (uint32_t byte = 0; byte < 4; byte++) {
                const int32_t w = weight(layer, 2 * pair + i % 2, i / 2 * 4 + byte);
                const uint32_t value = (uint32_t)(w + (1 << (bits - 1)));
                for (uint32_t b = 0; b < bits; b++) {
                    uint32_t word, bit;
                    place(bits, i % 8, byte, b, &word, &bit);
                    row[i / 8 * bits + word] |= (value >> b & 1u) << bit;
                }
            }
        }
    }
    return packed;
}

static int32_t *pack_tables(const layer_t *layer)
{
    const uint32_t channels = layer->out.shape[2];
    int32_t *tables = exact_block((channels + 1) / 2 * EQ_STAGE_WORDS * sizeof *tables);
    for (uint32_t c = 0; c < padded(channels, 2); c++) {
        int32_t *stage = tables + c / 2 * EQ_STAGE_WORDS;
        const int32_t shift = c < channels ? layer->shift[c] : -1;
        const int32_t right = shift < 0 ? -shift : 0, left = shift > 0 ? shift : 0;
        int64_t sum = c < channels ? 256 * (int64_t)layer->bias[c] : 0;
        for (uint32_t k = 0; k < layer->count; k++) {
            sum -= weight(layer, c, k) * (256 * layer->in.zero_point + (k % 2 == 0 ? 127 : 0));
        }
        stage[c % 2] = (int32_t)(uint32_t)(uint64_t)sum;
        stage += c % 2 * EQ_STAGE_STEP;
        stage[EQ_STAGE_MULTIPLIER] = c < channels ? layer->multiplier[c] : 0;
        const int64_t offset =
            (INT64_C(1) << right) / 2 + layer->out.zero_point * (INT64_C(1) << right);
        stage[EQ_STAGE_OFFSET] = (int32_t)(uint32_t)(uint64_t)offset;
        stage[EQ_STAGE_SHIFT] = right + (7 - left) * 256;
    }
    for (uint32_t pair = 0; pair < (channels + 1) / 2; pair++) {
        int32_t *stage = tables + pair * EQ_STAGE_WORDS;
        const int32_t rights[] = {stage[EQ_STAGE_SHIFT] & 255,
                                  stage[EQ_STAGE_SHIFT + EQ_STAGE_STEP] & 255};
        stage[EQ_STAGE_SHIFT] |= rights[0] == 0 || rights[1] == 0 ? EQ_STAGE_ANY : 0;
    }
    return tables;
}

/// An image ///

/* Indices of its operators; its tensors have the same, beginning with the input. */
enum { OP_CONV_PAIRS, OP_CONV_FIELDS, OP_FC_FIELDS, OP_FC_PAIRS };

static void add_layer(model_t *m, uint16_t kernel, uint16_t input, uint16_t output, uint16_t taps,
                      uint8_t bits)
{
    const eq_layout_rules_t *rules = eq_kernel_find(kernel)->rules;
    eq_operator_t *op = add_operator(m, kernel, input, output);
    set_window(op, taps, 1, 1, taps / 2);
    op->weight_bits = bits;
    op->layout = rules->layout;
    layer_t layer = {.op = *op, .in = m->tensors[input], .out = m->tensors[output]};
    layer.count = taps != 0 ? (uint32_t)taps * taps * layer.in.shape[2] : eq_elements(&layer.in);
    layer.weights = exact_block(layer.count * layer.out.shape[2]);
    const int32_t high = (1 << (bits - 1)) - 1;
    for (uint32_t i = 0; i < layer.count * layer.out.shape[2]; i++) {
        layer.weights[i] = (int8_t)random_in(&m->random, -high, high);
    }
    for (uint32_t c = 0; c < layer.out.shape[2]; c++) {
        layer.bias[c] = random_in(&m->random, -500, 500);
        layer.multiplier[c] = (1 << 30) + (int32_t)(random_next(&m->random) >> 2);
        layer.shift[c] = (int8_t)(c == 3 ? 0 : -bits);
    }
    uint32_t words;
    uint32_t *weights = pack_weights(&layer, &words);
    int32_t *tables = pack_tables(&layer);
    op->weights = align8(m->count[EQ_SECTION_WEIGHTS]);
    memcpy(m->weights + op->weights, weights, words * sizeof *weights);
    m->count[EQ_SECTION_WEIGHTS] = op->weights + words * (uint32_t)sizeof *weights;
    op->bias = add_words(m, (layer.out.shape[2] + 1) / 2 * EQ_STAGE_WORDS, tables);
    const uint64_t own = rules->scratch_bytes(op, &layer.in, &layer.out, layer.count);
    add_scratch(m, op, (uint32_t)own);
    free(weights);
    free(tables);
    free(layer.weights);
}

static image_t pairs_image(void)
{
    model_t *m = exact_block(sizeof *m);
    m->random = 20261123u;
    const uint16_t image = add_tensor(m, 4, 5, 6, 4);
    const uint16_t conv = add_tensor(m, 4, 5, 6, 5);
    const uint16_t point = add_packed(m, 4, 5, 6, 6, 4);
    const uint16_t hidden = add_tensor(m, 2, 1, 1, 7);
    const uint16_t logits = add_tensor(m, 2, 1, 1, 3);
    add_layer(m, 55, image, conv, 3, 8);
    add_layer(m, 57, image, point, 1, 4);
    add_layer(m, 58, point, hidden, 0, 3);
    add_layer(m, 56, hidden, logits, 0, 8);
    const eq_port_t ports[] = {{image, 0}, {logits, 1}, {conv, 1}};
    return block_image(m, ports, 3);
}

#endif
