/*
 * eq_gate.h - what the gates of a model do between its blocks: the C twin of edgeq/gates.py.
 *
 * All of it is reached through the row of EQ_FAMILY_GATE in the kernel list: firmware without gated
 * models has none. No block runs here.
 */
#ifndef EQ_GATE_H
#define EQ_GATE_H

#include "edgeq.h"
#include "eq_image.h"

typedef enum {
    EQ_GATE_CHECK, /* the section of a context that is filled otherwise; then as EQ_GATE_START */
    EQ_GATE_START, /* chooses the first block's level, if no run has begun */
    EQ_GATE_NEXT   /* a block has ended: EQ_MORE and what comes then, or EQ_OK */
} eq_gate_task_t;

enum { EQ_ROUTED = 0xFF }; /* a path by index: none is forced */

/* Lets eq_gate_s8_ref do a task, or EQ_E_KERNEL where the firmware has no gates (eq_run.c). */
eq_status_t eq_ask_gate(eq_ctx_t *ctx, eq_gate_task_t task);

/// What the files of a gate share ///

#define EQ_GATE_FEATURES (EQ_GATE_TOP + 1u)

static inline const void *eq_gate_at(const eq_gate_t *gate, uint32_t offset)
{
    return (const uint8_t *)gate + offset;
}

static inline const eq_path_t *eq_gate_paths(const eq_gate_t *gate)
{
    return eq_gate_at(gate, gate->paths);
}

/* What a logit so many steps below the greatest weighs. */
static inline uint32_t eq_gate_weight(const uint16_t *exponentials, uint32_t below)
{
    return ((uint32_t)exponentials[below % 16] * exponentials[16 + below / 16] + (1u << 15)) >> 16;
}

static inline uint32_t eq_path_cost(const eq_path_t *path)
{
    return path->cost + 1u;
}

/* The level of a block on a path that reaches it. */
static inline uint32_t eq_path_level(const eq_path_t *path, uint32_t block)
{
    return path->levels >> 4 * block & 15u;
}

/* What the network of a gate reads of its exit; a table looks at as many probabilities. */
static inline uint32_t eq_gate_seen_bytes(const eq_gate_t *gate)
{
    return gate->form == EQ_FORM_MLP ? 2u * gate->classes + 4u : gate->classes;
}

/* eq_gate_layer_t with what follows it. */
static inline uint32_t eq_gate_layer_bytes(const eq_gate_t *gate)
{
    const uint32_t inputs = eq_gate_seen_bytes(gate) + gate->exits + 1u;
    const uint32_t weights = gate->size * (inputs + 1u);
    return (uint32_t)(sizeof(eq_gate_layer_t) + gate->size * sizeof(int32_t)) +
           ((weights + 3u) & ~3u);
}

/* Where in the state of an MLP hidden sums of paths begin, one row for each length. Before them stands
   what it reads: probabilities here and at the exit before, entropies here and there, maxima there and
   here. */
static inline uint32_t eq_gate_sums_offset(const eq_gate_t *gate)
{
    return (eq_gate_seen_bytes(gate) + 3u) & ~3u;
}

/* Arena bytes that a gate keeps for a run. */
static inline uint32_t eq_gate_state_bytes(const eq_gate_t *gate)
{
    switch (gate->form) {
    case EQ_FORM_TABLE:
        return eq_gate_seen_bytes(gate);
    case EQ_FORM_MLP:
        return eq_gate_sums_offset(gate) + 4u * gate->exits * gate->size;
    default:
        return 0;
    }
}

/*
 * What the kernel of a form that predicts gets as its scratch: the decision at the end of `taken`, with
 * the best path so far; or, with `logits` NULL, whether its part of the section fits.
 */
typedef struct {
    const eq_gate_t *gate;
    const int8_t *logits;
    uint8_t *state;
    const eq_path_t *taken;
    uint32_t tradeoff;
    const eq_path_t *best;
    uint64_t score; /* error + price */
    const eq_ctx_t *ctx;
    eq_status_t status;
} eq_choice_t;

/// eq_gate_check.c ///

/* Of the section of a context that is filled otherwise. */
eq_status_t eq_gate_check(const eq_ctx_t *ctx);

/* Whether `count` items of `size` bytes at an offset lie inside the section. */
int eq_gate_inside(const eq_ctx_t *ctx, uint32_t offset, uint32_t count, uint32_t size);

/// eq_gate.c ///

/* Probabilities as bytes; their entropy. */
uint8_t eq_gate_see(const eq_gate_t *gate, const int8_t *logits, uint8_t *probabilities);

/* The tradeoff times the cost. */
uint64_t eq_gate_price(const eq_choice_t *choice, const eq_path_t *path);

/* A path with its error + price. Of equals the cheapest wins, then the shortest, then the first. */
void eq_gate_offer(eq_choice_t *choice, const eq_path_t *path, uint64_t score);

/* Lets the kernel of the form do it, or 0 where the firmware has none. */
int eq_gate_ask(const eq_gate_t *gate, eq_choice_t *choice);

/* The path, by index, of the first block. */
uint32_t eq_gate_first(const eq_gate_t *gate, uint32_t tradeoff);

/* The path that goes on from `taken` (EQ_ROUTE: the first) towards `goal`, which continues it. */
uint32_t eq_gate_toward(const eq_gate_t *gate, uint32_t taken, uint32_t goal);

/*
 * Where an input goes that came by the path `taken`, which ends before the last exit, and left these
 * logits there: the path that is a block longer, or `taken` itself: exit. `state` remembers what the
 * gates of this run saw.
 */
uint32_t eq_gate_next(const eq_gate_t *gate, uint32_t taken, uint32_t tradeoff,
                      const int8_t *logits, uint8_t *state);

#endif
