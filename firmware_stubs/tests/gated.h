/*
 * gated.h - a small model with three exits, two levels and gates of each form, made by hand, for
 * test_gates.c and fuzz_image.c. What the gates hold is random.
 */
#ifndef GATED_H
#define GATED_H

#include "eq_gate.h"
#include "model.h"

enum { GATED_EXITS = 3, GATED_LEVELS = 2, GATED_CLASSES = 7, GATED_SIZE = 4, GATED_PATHS = 9 };

/* Room in the section, at the next multiple of 8. */
static uint32_t add_gate_bytes(model_t *m, uint32_t bytes)
{
    const uint32_t offset = m->count[EQ_SECTION_GATE];
    for (uint32_t i = 0; i < bytes; i++) {
        m->gate[offset + i] = (uint8_t)random_next(&m->random);
    }
    m->count[EQ_SECTION_GATE] = align8(offset + bytes);
    return offset;
}

/* Every path of levels that never fall, in the order of the tree. */
static void add_paths(model_t *m, eq_gate_t *gate)
{
    static const uint32_t levels[GATED_PATHS][2] = {
        {0, 1}, {0, 2}, {0, 3}, {0x100, 3}, {0x10, 2}, {0x110, 3}, {1, 1}, {0x11, 2}, {0x111, 3}};
    static const uint8_t options[GATED_PATHS] = {6, 3, 1, 1, 2, 1, 3, 2, 1};
    gate->paths = add_gate_bytes(m, GATED_PATHS * (uint32_t)sizeof(eq_path_t));
    gate->path_count = GATED_PATHS;
    eq_path_t *path = (void *)(m->gate + gate->paths);
    for (uint32_t i = 0; i < GATED_PATHS; i++, path++) {
        const uint8_t length = (uint8_t)levels[i][1];
        *path = (eq_path_t){levels[i][0], (uint16_t)(length * 20000u - 1), length, options[i]};
    }
}

static void add_networks(model_t *m, eq_gate_t *gate)
{
    const uint32_t bytes = eq_gate_layer_bytes(gate);
    gate->predictor = add_gate_bytes(m, (GATED_EXITS - 1) * bytes);
    for (uint32_t exit = 0; exit + 1 < GATED_EXITS; exit++) {
        eq_gate_layer_t *layer = (void *)(m->gate + gate->predictor + exit * bytes);
        int32_t *bias = (void *)(layer + 1);
        *layer = (eq_gate_layer_t){10, 300, 1200000000, 6};
        for (uint32_t i = 0; i < GATED_SIZE; i++) {
            bias[i] = random_in(&m->random, -9000, 9000);
        }
    }
}

static void add_gate(model_t *m, eq_form_t form)
{
    eq_gate_t gate = {.form = (uint8_t)form,
                      .version = EQ_GATE_VERSION,
                      .exits = GATED_EXITS,
                      .first_count = 2,
                      .classes = GATED_CLASSES,
                      .size = form == EQ_FORM_STATIC ? 0 : GATED_SIZE,
                      .level_count = GATED_LEVELS,
                      .tradeoff = 20000,
                      .state = align8(m->arena_bytes)};
    (void)add_gate_bytes(m, sizeof gate);
    gate.state_bytes = eq_gate_state_bytes(&gate);
    m->arena_bytes = gate.state + gate.state_bytes;
    add_paths(m, &gate);
    gate.first = add_gate_bytes(m, 2 * sizeof(eq_first_t));
    memcpy(m->gate + gate.first, (eq_first_t[]){{0, 0}, {50000, 6}}, 2 * sizeof(eq_first_t));
    if (form != EQ_FORM_STATIC) {
        gate.exponentials = add_gate_bytes(m, 2 * EQ_GATE_EXPONENTIALS);
        gate.entropies = add_gate_bytes(m, 2 * EQ_GATE_ENTROPIES);
    }
    if (form == EQ_FORM_TABLE) { /* 6 + 3 + 2 + 3 + 2 options of 5 nodes */
        gate.predictor = add_gate_bytes(
            m, GATED_SIZE * ((GATED_EXITS - 1) * EQ_GATE_FEATURES + 6 + 3 + 2 + 3 + 2));
    } else if (form == EQ_FORM_MLP) {
        gate.sigmoids = add_gate_bytes(m, 2 * EQ_GATE_SIGMOIDS);
        add_networks(m, &gate);
    }
    memcpy(m->gate, &gate, sizeof gate);
}

/* Bodies are a convolution each, the last one a fully connected layer, as heads are. */
static image_t gated_image(eq_form_t form)
{
    static const eq_variant_t variants[] = {{0, 1, 0, 0}, {1, 1, 1, 0}, {2, 1, 0, 0}, {3, 1, 0, 0},
                                            {4, 1, 1, 0}, {5, 1, 0, 0}, {6, 1, 0, 0}, {7, 1, 1, 0}};
    static const eq_block_t blocks[] = {{0, 2}, {2, 1}, {3, 2}, {5, 1}, {6, 2}};
    model_t *m = exact_block(sizeof *m);
    m->random = 20261121u;
    uint16_t image = add_tensor(m, 4, 3, 3, 4);
    const uint16_t logits = add_tensor(m, 2, 1, 1, GATED_CLASSES);
    for (uint32_t exit = 0; exit < GATED_EXITS; exit++) {
        const int last = exit + 1 == GATED_EXITS;
        const uint16_t next = last ? logits : add_tensor(m, 4, 3, 3, 4);
        for (uint32_t level = 0; level < GATED_LEVELS; level++) {
            eq_operator_t *op = add_operator(m, last ? 5 : 1, image, next);
            set_window(op, last ? 0 : 1, last ? 0 : 1, last ? 0 : 1, 0);
            add_weights(m, op, last ? 36 : 4, level == 0 ? 8 : 4);
        }
        if (!last) {
            add_weights(m, add_operator(m, 5, next, logits), 36, 8);
        }
        image = next;
    }
    memcpy(m->variants, variants, sizeof variants);
    memcpy(m->blocks, blocks, sizeof blocks);
    memcpy(m->ports, (eq_port_t[]){{0, 0}, {logits, 1}}, 2 * sizeof(eq_port_t));
    m->count[EQ_SECTION_VARIANTS] = 8;
    m->count[EQ_SECTION_BLOCKS] = 5;
    m->count[EQ_SECTION_PORTS] = 2;
    add_gate(m, form);
    const image_t made = model_image(m);
    free(m);
    return made;
}

#endif
