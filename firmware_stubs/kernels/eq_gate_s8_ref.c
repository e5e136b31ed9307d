#include <stddef.h>

#include "eq_gate.h"
#include "eq_kernel.h"

/* Block b, body or head, is the next to run. */
static void enter(eq_ctx_t *ctx, uint32_t b, uint32_t level)
{
    const eq_block_t *block = (const eq_block_t *)ctx->blocks + b;
    const eq_variant_t *variants = (const eq_variant_t *)ctx->variants + block->first_variant;
    uint16_t variant = 0;
    while (b % 2 == 0 && variants[variant].level != level) {
        variant++;
    }
    ctx->block = (uint16_t)b;
    ctx->variant = variant;
}

/* The body at the end of that path. */
static void follow(eq_ctx_t *ctx, uint32_t path)
{
    const eq_path_t *taken = &eq_gate_paths(ctx->gate)[path];
    const uint32_t body = taken->length - 1u;
    ctx->taken = (uint8_t)path;
    enter(ctx, 2 * body, eq_path_level(taken, body));
}

static eq_status_t start(eq_ctx_t *ctx)
{
    if (ctx->block == 0 && ctx->operator_index == 0) {
        ctx->goal = ctx->forced;
        follow(ctx, ctx->goal == EQ_ROUTED ? eq_gate_first(ctx->gate, ctx->tradeoff)
                                           : eq_gate_toward(ctx->gate, EQ_ROUTE, ctx->goal));
    }
    return EQ_OK;
}

static eq_status_t leave(eq_ctx_t *ctx)
{
    ctx->last = ctx->taken;
    ctx->block = 0;
    return start(ctx);
}

static eq_status_t next(eq_ctx_t *ctx)
{
    const eq_gate_t *gate = ctx->gate;
    const eq_path_t *taken = &eq_gate_paths(gate)[ctx->taken];
    if (taken->length == gate->exits) {
        return leave(ctx);
    }
    if (ctx->block % 2 == 0) {
        enter(ctx, ctx->block + 1u, 0);
        return EQ_MORE;
    }
    uint32_t path = eq_gate_next(gate, ctx->taken, ctx->tradeoff, ctx->output[0].data,
                                 ctx->arena + gate->state);
    if (ctx->goal != EQ_ROUTED) {
        path = eq_gate_toward(gate, ctx->taken, ctx->goal);
    }
    if (path == ctx->taken) {
        return leave(ctx);
    }
    follow(ctx, path);
    return EQ_MORE;
}

static eq_status_t check(eq_ctx_t *ctx)
{
    const eq_status_t status = eq_gate_check(ctx);
    if (status != EQ_OK) {
        return status;
    }
    ctx->tradeoff = ((const eq_gate_t *)ctx->gate)->tradeoff;
    ctx->forced = EQ_ROUTED;
    return start(ctx);
}

/* The context lies where scratch of other kernels does. */
void eq_gate_s8_ref(const eq_call_t *call)
{
    eq_ctx_t *ctx = call->scratch;
    eq_status_t status;
    if (ctx->task == EQ_GATE_CHECK) {
        status = check(ctx);
    } else if (ctx->task == EQ_GATE_START) {
        status = start(ctx);
    } else {
        status = next(ctx);
    }
    ctx->status = (int8_t)status;
}
