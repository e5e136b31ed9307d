/*
 * eq_gate_check.c - what eq_init asks of the section of gates: all that eq_gate.c and eq_gate_s8_ref.c
 * rely on. The rest of the image has been checked.
 */
#include <stddef.h>

#include "eq_check.h"
#include "eq_gate.h"
#include "eq_kernel.h"
#include "eq_rows.h"

#define MOST_CLASSES 4095u /* their exponentials add up to less than 2^28 */
#define MOST_BLOCKS 8u     /* 4 bits each */

static uint32_t section_bytes(const eq_ctx_t *ctx, uint32_t kind)
{
    const eq_header_t *header = (const void *)ctx->image;
    const eq_section_t *sections = (const void *)(header + 1);
    for (uint32_t i = 0; i < header->section_count; i++) {
        if (sections[i].kind == kind) {
            return sections[i].bytes;
        }
    }
    return 0;
}

/* Whether `count` items of `size` bytes at an offset lie inside the section. */
int eq_gate_inside(const eq_ctx_t *ctx, uint32_t offset, uint32_t count, uint32_t size)
{
    return offset % (size < 4 ? size : 4) == 0 &&
           (uint64_t)offset + (uint64_t)count * size <= section_bytes(ctx, EQ_SECTION_GATE);
}

EQ_ONCE static int record_fits(const eq_ctx_t *ctx, const eq_gate_t *g)
{
    const eq_tensor_t *out = &ctx->output[0];
    const uint64_t values = (uint64_t)out->shape[0] * out->shape[1] * out->shape[2];
    const int predicts = g->form != EQ_FORM_STATIC;
    return g->form <= EQ_FORM_MLP && g->exits >= 2 && g->exits <= MOST_BLOCKS &&
           ctx->block_count == 2u * g->exits - 1u && g->path_count != 0 &&
           g->path_count < UINT8_MAX && g->first_count != 0 && g->classes >= 2 &&
           g->classes <= MOST_CLASSES && values == g->classes && eq_width(out->bits) == 8 &&
           g->level_count >= 1 && g->level_count <= 16 && g->size <= UINT8_MAX &&
           (g->size != 0) == predicts;
}

/* Bodies and heads alternate; what writes the output last writes output 0. */
EQ_ONCE static int chain_fits(const eq_ctx_t *ctx)
{
    const eq_block_t *blocks = ctx->blocks;
    const eq_variant_t *variants = ctx->variants;
    const eq_operator_t *operators = ctx->operators;
    const eq_tensor_record_t *tensors = ctx->tensors;
    for (uint32_t b = 0; b < ctx->block_count; b++) {
        const int ends = b % 2 == 1 || b + 1u == ctx->block_count;
        if (b % 2 == 1 && blocks[b].variant_count != 1) {
            return 0;
        }
        for (uint32_t i = 0; i < blocks[b].variant_count; i++) {
            const eq_variant_t *variant = &variants[blocks[b].first_variant + i];
            const eq_operator_t *last =
                &operators[variant->first_operator + variant->operator_count - 1u];
            const eq_tensor_record_t *out = &tensors[last->output];
            if ((i > 0 && variant->level <= variant[-1].level) ||
                (ends &&
                 (ctx->arena + out->offset != ctx->output[0].data ||
                  out->bits != ctx->output[0].bits || eq_bytes_of(out) != ctx->output[0].bytes))) {
                return 0;
            }
        }
    }
    return 1;
}

static int has_level(const eq_ctx_t *ctx, uint32_t body, uint32_t level)
{
    const eq_block_t *block = (const eq_block_t *)ctx->blocks + 2 * body;
    const eq_variant_t *variants = (const eq_variant_t *)ctx->variants + block->first_variant;
    for (uint32_t i = 0; i < block->variant_count; i++) {
        if (variants[i].level == level) {
            return 1;
        }
    }
    return 0;
}

/* The levels of one path: those that blocks have, and never more precise again. */
EQ_ONCE static int levels_fit(const eq_ctx_t *ctx, const eq_gate_t *g, const eq_path_t *path)
{
    uint32_t before = 0;
    if (path->length == 0 || path->length > g->exits ||
        (uint64_t)path->levels >> 4 * path->length != 0) {
        return 0;
    }
    for (uint32_t body = 0; body < path->length; body++) {
        const uint32_t level = eq_path_level(path, body);
        if (level < before || level >= g->level_count || !has_level(ctx, body, level)) {
            return 0;
        }
        before = level;
    }
    return 1;
}

/* Whether the path stands where the order of the tree wants it, behind the one before. */
EQ_ONCE static int follows(const eq_path_t *before, const eq_path_t *path)
{
    const uint32_t shared = path->length - 1u;
    const uint32_t differ = (before->levels ^ path->levels) & ((1u << 4 * shared) - 1u);
    return path->length <= before->length + 1u && differ == 0 &&
           (path->length > before->length ||
            eq_path_level(path, shared) > eq_path_level(before, shared));
}

EQ_ONCE static int paths_fit(const eq_ctx_t *ctx, const eq_gate_t *g)
{
    const eq_path_t *paths = eq_gate_paths(g);
    uint32_t least[MOST_BLOCKS + 1] = {0}; /* cost of a path so long, by that of its beginning */
    for (uint32_t i = 0; i < g->path_count; i++) {
        const eq_path_t *path = &paths[i];
        if (!levels_fit(ctx, g, path) || (i == 0 ? path->length != 1 : !follows(path - 1, path)) ||
            path->cost < least[path->length - 1u]) {
            return 0;
        }
        least[path->length] = path->cost;
        uint32_t end = i + 1;
        while (end < g->path_count && paths[end].length > path->length) {
            end++;
        }
        if (path->options != end - i) {
            return 0;
        }
    }
    return 1;
}

EQ_ONCE static int first_fits(const eq_gate_t *g)
{
    const eq_path_t *paths = eq_gate_paths(g);
    const eq_first_t *first = eq_gate_at(g, g->first);
    for (uint32_t i = 0; i < g->first_count; i++) {
        if (first[i].path >= g->path_count || paths[first[i].path].length != 1 ||
            (i == 0 ? first[i].tradeoff != 0 : first[i].tradeoff <= first[i - 1].tradeoff)) {
            return 0;
        }
    }
    return 1;
}

EQ_ONCE static int apart(const eq_gate_t *g, uint32_t offset, uint32_t bytes)
{
    return g->state >= offset + bytes || offset >= g->state + g->state_bytes;
}

/* Whether nothing that runs touches the state. */
EQ_ONCE static int state_fits(const eq_ctx_t *ctx, const eq_gate_t *g)
{
    const eq_header_t *header = (const void *)ctx->image;
    const eq_tensor_record_t *tensors = ctx->tensors;
    const eq_operator_t *operators = ctx->operators;
    if (g->state % EQ_IMAGE_ALIGN != 0 || g->state_bytes < eq_gate_state_bytes(g) ||
        (uint64_t)g->state + g->state_bytes > header->arena_bytes) {
        return 0;
    }
    if (g->state_bytes == 0) {
        return 1;
    }
    const uint32_t tensor_count = section_bytes(ctx, EQ_SECTION_TENSORS) / sizeof *tensors;
    const uint32_t operator_count = section_bytes(ctx, EQ_SECTION_OPERATORS) / sizeof *operators;
    for (uint32_t i = 0; i < tensor_count; i++) {
        if (!apart(g, tensors[i].offset, eq_bytes_of(&tensors[i]))) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < operator_count; i++) {
        const eq_operator_t *op = &operators[i];
        if (op->scratch_bytes != 0 && !apart(g, op->scratch, op->scratch_bytes)) {
            return 0;
        }
    }
    return 1;
}

/* Whether the image says that it needs the kernel of a family, and the firmware has it. */
static int uses(const eq_header_t *header, uint32_t family)
{
    const eq_kernel_t *kernel = eq_kernel_of(family);
    return kernel != NULL && (header->kernels[kernel->id / 32] >> kernel->id % 32 & 1u) != 0;
}

eq_status_t eq_gate_check(const eq_ctx_t *ctx)
{
    const eq_gate_t *g = ctx->gate;
    eq_choice_t choice;
    if (!eq_gate_inside(ctx, 0, 1, sizeof *g)) {
        return EQ_E_GATES;
    }
    if (g->version != EQ_GATE_VERSION) {
        return EQ_E_FORMAT;
    }
    if (!record_fits(ctx, g) || !chain_fits(ctx) ||
        !eq_gate_inside(ctx, g->paths, g->path_count, sizeof(eq_path_t)) || !paths_fit(ctx, g) ||
        !eq_gate_inside(ctx, g->first, g->first_count, sizeof(eq_first_t)) || !first_fits(g) ||
        !state_fits(ctx, g)) {
        return EQ_E_GATES;
    }
    if (!uses((const void *)ctx->image, EQ_FAMILY_GATE) ||
        !uses((const void *)ctx->image, EQ_FAMILY_GATE + (uint32_t)g->form)) {
        return EQ_E_KERNEL;
    }
    if (g->form == EQ_FORM_STATIC) {
        return EQ_OK;
    }
    if (!eq_gate_inside(ctx, g->exponentials, EQ_GATE_EXPONENTIALS, sizeof(uint16_t)) ||
        !eq_gate_inside(ctx, g->entropies, EQ_GATE_ENTROPIES, sizeof(uint16_t)) ||
        eq_gate_weight(eq_gate_at(g, g->exponentials), 0) == 0) {
        return EQ_E_GATES;
    }
    choice.gate = g;
    choice.ctx = ctx;
    choice.logits = NULL;
    (void)eq_gate_ask(g, &choice);
    return choice.status;
}
