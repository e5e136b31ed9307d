/*
 * eq_gate.c - what a gate sees, predicts and decides: the C twin of edgeq/gates.py, whose words and
 * order these are.
 */
#include "eq_gate.h"

#include <stddef.h>

#include "eq_fixed.h"
#include "eq_kernel.h"

/// What it sees ///

#define LINE 512u /* between two values of the entropies */

static uint8_t byte_of(uint32_t q15)
{
    const uint32_t byte = q15 >> 7;
    return (uint8_t)(byte < 255 ? byte : 255);
}

/* Probabilities as bytes; their entropy. */
uint8_t eq_gate_see(const eq_gate_t *gate, const int8_t *logits, uint8_t *probabilities)
{
    const uint16_t *exponentials = eq_gate_at(gate, gate->exponentials);
    const uint16_t *entropies = eq_gate_at(gate, gate->entropies);
    const uint32_t classes = gate->classes;
    int32_t greatest = logits[0];
    for (uint32_t i = 1; i < classes; i++) {
        greatest = logits[i] > greatest ? logits[i] : greatest;
    }
    uint32_t total = 0;
    for (uint32_t i = 0; i < classes; i++) {
        total += eq_gate_weight(exponentials, (uint32_t)(greatest - logits[i]));
    }
    uint32_t entropy = 0;
    for (uint32_t i = 0; i < classes; i++) {
        const uint32_t weight = eq_gate_weight(exponentials, (uint32_t)(greatest - logits[i]));
        const uint32_t probability = ((weight << 15) + total / 2) / total;
        probabilities[i] = byte_of(probability);
        const uint16_t *at = entropies + probability / LINE;
        entropy += at[0] * LINE + (uint32_t)(at[1] - at[0]) * (probability % LINE);
    }
    return byte_of(entropy / LINE);
}

/// What it decides ///

uint64_t eq_gate_price(const eq_choice_t *choice, const eq_path_t *path)
{
    return (uint64_t)choice->tradeoff * eq_path_cost(path) >> 16;
}

void eq_gate_offer(eq_choice_t *choice, const eq_path_t *path, uint64_t score)
{
    const eq_path_t *best = choice->best;
    if (score < choice->score ||
        (score == choice->score &&
         (path->cost < best->cost || (path->cost == best->cost && path->length < best->length)))) {
        choice->score = score;
        choice->best = path;
    }
}

/// Where inputs go ///

uint32_t eq_gate_first(const eq_gate_t *gate, uint32_t tradeoff)
{
    const eq_first_t *first = eq_gate_at(gate, gate->first);
    uint32_t i = gate->first_count - 1u;
    while (first[i].tradeoff > tradeoff) {
        i--;
    }
    return first[i].path;
}

uint32_t eq_gate_toward(const eq_gate_t *gate, uint32_t taken, uint32_t goal)
{
    const eq_path_t *paths = eq_gate_paths(gate);
    if (goal == taken) {
        return taken;
    }
    uint32_t path = taken + 1u; /* EQ_ROUTE: 0 */
    while (goal - path >= paths[path].options) {
        path += paths[path].options;
    }
    return path;
}

/* The first path that continues this one to the last exit; itself where there is none. */
static const eq_path_t *whole(const eq_gate_t *gate, const eq_path_t *taken)
{
    for (uint32_t i = 0; i < taken->options; i++) {
        if (taken[i].length == gate->exits) {
            return &taken[i];
        }
    }
    return taken;
}

int eq_gate_ask(const eq_gate_t *gate, eq_choice_t *choice)
{
    const eq_kernel_t *kernel = eq_kernel_of(EQ_FAMILY_GATE + (uint32_t)gate->form);
    eq_call_t call;
    call.scratch = choice;
    if (kernel == NULL) {
        return 0;
    }
    kernel->run(&call);
    return 1;
}

uint32_t eq_gate_next(const eq_gate_t *gate, uint32_t taken, uint32_t tradeoff,
                      const int8_t *logits, uint8_t *state)
{
    const eq_path_t *paths = eq_gate_paths(gate);
    eq_choice_t choice = {.gate = gate,
                          .logits = logits,
                          .state = state,
                          .taken = &paths[taken],
                          .tradeoff = tradeoff,
                          .best = &paths[taken],
                          .score = UINT64_MAX};
    if (gate->form == EQ_FORM_STATIC) {
        choice.best = whole(gate, &paths[taken]);
    } else {
        (void)eq_gate_ask(gate, &choice);
    }
    return eq_gate_toward(gate, taken, (uint32_t)(choice.best - paths));
}
