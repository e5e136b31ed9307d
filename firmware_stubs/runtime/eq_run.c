#include <stddef.h>

#include "edgeq.h"
#include "eq_gate.h"
#include "eq_image.h"
#include "eq_kernel.h"
#include "eq_rows.h"

const eq_kernel_t *eq_kernel_find(uint32_t id)
{
    for (uint16_t i = 0; i < eq_kernel_count; i++) {
        if (eq_kernels[i].id == id) {
            return &eq_kernels[i];
        }
    }
    return NULL;
}

EQ_NOINLINE const eq_kernel_t *eq_kernel_of(uint32_t family)
{
    for (uint16_t i = 0; i < eq_kernel_count; i++) {
        if (eq_kernels[i].family == family) {
            return &eq_kernels[i];
        }
    }
    return NULL;
}

const eq_tensor_t *eq_input(const eq_ctx_t *ctx, uint32_t i)
{
    if (ctx == NULL || ctx->image == NULL || i >= ctx->input_count) {
        return NULL;
    }
    return &ctx->input[i];
}

const eq_tensor_t *eq_output(const eq_ctx_t *ctx, uint32_t i)
{
    if (ctx == NULL || ctx->image == NULL || i >= ctx->output_count) {
        return NULL;
    }
    return &ctx->output[i];
}

static void run_operator(const eq_ctx_t *ctx, const eq_operator_t *op)
{
    const eq_tensor_record_t *tensors = ctx->tensors;
    const eq_tensor_record_t *in = &tensors[op->input[0]];
    const eq_tensor_record_t *other = op->input[1] == EQ_NONE ? in : &tensors[op->input[1]];
    const eq_tensor_record_t *out = &tensors[op->output];
    const eq_kernel_t *kernel = eq_kernel_find(op->kernel);
    const eq_call_t call = {
        .kernel = kernel,
        .op = op,
        .in = {in, other},
        .out = out,
        .input = {(const int8_t *)ctx->arena + in->offset,
                  (const int8_t *)ctx->arena + other->offset},
        .output = (int8_t *)ctx->arena + out->offset,
        .weights = ctx->weights + op->weights,
        .bias = (const void *)(ctx->tables + op->bias),
        .multiplier = (const void *)(ctx->tables + op->multiplier),
        .shift = (const int8_t *)ctx->tables + op->shift,
        .scratch = ctx->arena + op->scratch,
    };
    if (eq_reads_bytes(kernel) && (eq_is_packed(in) || eq_is_packed(other) || eq_is_packed(out))) {
        kernel = eq_kernel_of(EQ_FAMILY_ROWS);
    }
    kernel->run(&call);
}

eq_status_t eq_ask_gate(eq_ctx_t *ctx, eq_gate_task_t task)
{
    const eq_kernel_t *kernel = eq_kernel_of(EQ_FAMILY_GATE);
    eq_call_t call;
    ctx->task = (uint8_t)task;
    call.scratch = ctx;
    if (kernel == NULL) {
        return EQ_E_KERNEL;
    }
    kernel->run(&call);
    return (eq_status_t)ctx->status;
}

eq_status_t eq_step(eq_ctx_t *ctx)
{
    if (ctx == NULL || ctx->image == NULL) {
        return EQ_E_ARGUMENT;
    }
    const eq_block_t *block = (const eq_block_t *)ctx->blocks + ctx->block;
    const eq_variant_t *variant =
        (const eq_variant_t *)ctx->variants + block->first_variant + ctx->variant;
    const eq_operator_t *operators = ctx->operators;

    run_operator(ctx, &operators[variant->first_operator + ctx->operator_index]);
    ctx->operator_index++;
    if (ctx->operator_index == variant->operator_count) {
        ctx->operator_index = 0;
        if (ctx->gate != NULL) {
            return eq_ask_gate(ctx, EQ_GATE_NEXT);
        }
        ctx->block++;
    }
    if (ctx->block == ctx->block_count) {
        ctx->block = 0;
        return EQ_OK;
    }
    return EQ_MORE;
}

EQ_NOINLINE int32_t eq_value(const eq_tensor_t *tensor, uint32_t i)
{
    return eq_get(tensor->data, tensor->bits, i);
}

/* The label and its lead over the runner-up, from output 0. */
static void decide(const eq_tensor_t *output, eq_result_t *result)
{
    const uint32_t count = output->shape[0] * output->shape[1] * output->shape[2];
    int32_t best = eq_value(output, 0);
    int32_t second = INT16_MIN;
    result->label = 0;
    for (uint32_t i = 1; i < count; i++) {
        const int32_t value = eq_value(output, i);
        if (value > best) {
            second = best;
            best = value;
            result->label = i;
        } else if (value > second) {
            second = value;
        }
    }
    result->confidence = count > 1 ? (uint32_t)(best - second) : 0u;
}

eq_status_t eq_run(eq_ctx_t *ctx, eq_result_t *out)
{
    eq_status_t status;
    do {
        status = eq_step(ctx);
    } while (status == EQ_MORE);
    if (status == EQ_OK && out != NULL) {
        decide(&ctx->output[0], out);
        out->exit = 0;
        out->path = 0;
        out->cost = 65536;
        if (ctx->gate != NULL) {
            const eq_path_t *path = &eq_gate_paths(ctx->gate)[ctx->last];
            out->exit = path->length - 1u;
            out->path = path->levels;
            out->cost = eq_path_cost(path);
        }
    }
    return status;
}

eq_status_t eq_set_tradeoff(eq_ctx_t *ctx, uint32_t lambda_q16)
{
    if (ctx == NULL || ctx->image == NULL) {
        return EQ_E_ARGUMENT;
    }
    if (ctx->gate == NULL) {
        return EQ_E_GATES;
    }
    ctx->tradeoff = lambda_q16;
    return eq_ask_gate(ctx, EQ_GATE_START);
}

eq_status_t eq_force(eq_ctx_t *ctx, uint32_t path, uint32_t exit)
{
    if (ctx == NULL || ctx->image == NULL) {
        return EQ_E_ARGUMENT;
    }
    if (ctx->gate == NULL) {
        return EQ_E_GATES;
    }
    const eq_gate_t *gate = ctx->gate;
    const eq_path_t *paths = eq_gate_paths(gate);
    uint8_t forced = EQ_ROUTED;
    if (exit != EQ_ROUTE) {
        forced = 0;
        while (forced < gate->path_count &&
               (paths[forced].levels != path || paths[forced].length - 1u != exit)) {
            forced++;
        }
        if (forced == gate->path_count) {
            return EQ_E_ARGUMENT;
        }
    }
    ctx->forced = forced;
    return eq_ask_gate(ctx, EQ_GATE_START);
}

const char *eq_status_name(eq_status_t status)
{
    static const char *const names[] = {
        "EQ_MORE",      "EQ_OK",         "EQ_E_ARGUMENT",   "EQ_E_LENGTH",
        "EQ_E_MAGIC",   "EQ_E_FORMAT",   "EQ_E_ABI",        "EQ_E_CRC",
        "EQ_E_SECTION", "EQ_E_LAYOUT",   "EQ_E_KERNEL",     "EQ_E_ARENA",
        "EQ_E_TENSOR",  "EQ_E_OPERATOR", "EQ_E_ARITHMETIC", "EQ_E_GATES",
    };
    const uint32_t i = (uint32_t)(EQ_MORE - status);
    return i < sizeof names / sizeof names[0] ? names[i] : "not a status";
}
