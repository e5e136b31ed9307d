/*
 * Operators on activations of fewer than 8 bits: not a kernel, but what brings any kernel for bytes
 * to packed tensors. Rows of the input are unpacked to scratch, the kernel computes a row of the
 * output, and that is packed. An input or output that is not packed is used where it lies.
 */
#include "eq_rows.h"
#include "eq_window.h"

#define CHUNK                                                                                      \
    64u /* values of an addition or table at a time: whole bytes, so that it may be in place */

/* An operator of its own for a part of the tensors; `call` points to the copies beside it. */
typedef struct {
    eq_operator_t op;
    eq_tensor_record_t in[2];
    eq_tensor_record_t out;
    eq_call_t call;
    int8_t *input; /* unpacked, in scratch */
    int8_t *output;
} part_t;

static void begin(part_t *part, const eq_call_t *call)
{
    const eq_rows_scratch_t sizes =
        eq_rows_scratch(call->op, call->kernel->family, call->in[0], call->in[1], call->out);
    int8_t *scratch = call->scratch;
    part->op = *call->op;
    part->in[0] = *call->in[0];
    part->in[1] = *call->in[1];
    part->out = *call->out;
    part->call = *call;
    part->call.op = &part->op;
    part->call.in[0] = &part->in[0];
    part->call.in[1] = &part->in[1];
    part->call.out = &part->out;
    part->call.scratch = scratch + sizes.input + sizes.output;
    part->op.scratch_bytes -= (uint32_t)(sizes.input + sizes.output);
    part->input = scratch;
    part->output = scratch + sizes.input;
}

static void set_shape(eq_tensor_record_t *tensor, uint32_t height, uint32_t width,
                      uint32_t channels)
{
    tensor->shape[0] = height;
    tensor->shape[1] = width;
    tensor->shape[2] = channels;
}

/* Values first .. first + count of the output: computed where they belong, or packed there. */
static void compute(part_t *part, const eq_call_t *call, uint32_t first, uint32_t count)
{
    const int packed = eq_is_packed(call->out);
    const uint32_t start = eq_is_wide(call->out) ? 2u * first : first;
    part->call.output = packed ? part->output : call->output + start;
    call->kernel->run(&part->call);
    if (packed) {
        eq_store_run(call->out, call->output, first, part->output, count);
    }
}

/// Convolutions ///

/* The input rows that lie unpacked: first, first + dilation, ... */
typedef struct {
    int32_t first;
    int32_t count;
} held_t;

/* Down by a distance; both are multiples of 4 where rows are. */
static void move_down(int8_t *to, uint32_t distance, uint32_t bytes)
{
    if ((distance | bytes) % 4u == 0) {
        uint32_t *words = (void *)to;
        for (uint32_t i = 0; i < bytes / 4u; i++) {
            words[i] = words[i + distance / 4u];
        }
    } else {
        for (uint32_t i = 0; i < bytes; i++) {
            to[i] = to[i + distance];
        }
    }
}

/* Holds the rows under a window: those that are there move down, the others are unpacked. */
static void hold_rows(part_t *part, const eq_call_t *call, held_t *held, eq_span_t span)
{
    const int32_t step = call->op->dilation_height;
    const uint32_t row = call->in[0]->shape[1] * call->in[0]->shape[2];
    const held_t wanted = {span.start + span.first * step, span.last - span.first};
    const int32_t ahead = wanted.first - held->first;
    int32_t kept = 0;
    if (ahead % step == 0 && ahead / step < held->count) {
        kept = held->count - ahead / step;
        kept = kept < wanted.count ? kept : wanted.count;
        if (ahead > 0) {
            move_down(part->input, (uint32_t)(ahead / step) * row, (uint32_t)kept * row);
        }
    }
    for (int32_t i = kept; i < wanted.count; i++) {
        const uint32_t first = (uint32_t)(wanted.first + i * step) * row;
        (void)eq_load_run(call->in[0], call->input[0], first, row, part->input + (uint32_t)i * row);
    }
    *held = wanted;
}

/* The operator that sees nothing but the rows under the window of output row y, as row 0. */
static void narrow(part_t *part, const eq_call_t *call, held_t *held, uint32_t y)
{
    const eq_span_t span = eq_clip_rows(call, y);
    const uint32_t row = call->in[0]->shape[1] * call->in[0]->shape[2];
    part->call.input[0] = part->input;
    part->in[0].shape[0] = (uint32_t)(span.last - span.first);
    part->op.pad_top = (uint16_t)span.first;
    if (span.first == span.last) {
        return; /* all padding */
    }
    if (eq_is_packed(call->in[0])) {
        hold_rows(part, call, held, span);
        part->op.dilation_height = 1;
    } else {
        const int32_t base = span.start > 0 ? span.start : 0;
        part->call.input[0] = eq_at(call->in[0], call->input[0], (uint32_t)base * row);
        part->in[0].shape[0] = call->in[0]->shape[0] - (uint32_t)base;
        part->op.pad_top = (uint16_t)(base - span.start);
    }
}

static void run_windows(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t row = part.out.shape[1] * part.out.shape[2];
    held_t held = {0, 0};
    part.out.shape[0] = 1;
    for (uint32_t y = 0; y < call->out->shape[0]; y++) {
        narrow(&part, call, &held, y);
        compute(&part, call, y * row, row);
    }
}

/// The others ///

static void run_fc(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    part.call.input[0] =
        eq_load_run(call->in[0], call->input[0], 0, eq_elements(call->in[0]), part.input);
    compute(&part, call, 0, call->out->shape[2]);
}

/* Some channels of a window, unpacked as an image of their own. */
static void load_patch(part_t *part, const eq_call_t *call, eq_span_t rows, eq_span_t columns,
                       uint32_t channel)
{
    const uint32_t *shape = call->in[0]->shape;
    const uint32_t count = part->in[0].shape[2];
    int8_t *to = part->input;
    for (int32_t y = rows.start + rows.first; y < rows.start + rows.last; y++) {
        for (int32_t x = columns.start + columns.first; x < columns.start + columns.last; x++) {
            const uint32_t pixel = (uint32_t)y * shape[1] + (uint32_t)x;
            (void)eq_load_run(call->in[0], call->input[0], pixel * shape[2] + channel, count, to);
            to += count;
        }
    }
}

/* Input and output of a pool have the same bits: both are packed. */
static void run_pool(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t *shape = call->out->shape;
    part.op.stride_height = part.op.stride_width = 1;
    part.op.pad_top = part.op.pad_left = 0;
    part.call.input[0] = part.input;
    for (uint32_t pixel = 0; pixel < shape[0] * shape[1]; pixel++) {
        const eq_span_t rows = eq_clip_rows(call, pixel / shape[1]);
        const eq_span_t columns = eq_clip_columns(call, pixel % shape[1]);
        part.op.kernel_height = (uint16_t)(rows.last - rows.first);
        part.op.kernel_width = (uint16_t)(columns.last - columns.first);
        for (uint32_t channel = 0; channel < shape[2]; channel += EQ_PATCH_CHANNELS) {
            const uint32_t left = shape[2] - channel;
            const uint32_t count = left < EQ_PATCH_CHANNELS ? left : EQ_PATCH_CHANNELS;
            set_shape(&part.in[0], part.op.kernel_height, part.op.kernel_width, count);
            set_shape(&part.out, 1, 1, count);
            load_patch(&part, call, rows, columns, channel);
            compute(&part, call, pixel * shape[2] + channel, count);
        }
    }
}

static void run_softmax(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t channels = call->in[0]->shape[2];
    const uint32_t count = eq_elements(call->in[0]);
    set_shape(&part.in[0], 1, 1, channels);
    set_shape(&part.out, 1, 1, channels);
    for (uint32_t first = 0; first < count; first += channels) {
        part.call.input[0] = eq_load_run(call->in[0], call->input[0], first, channels, part.input);
        compute(&part, call, first, channels);
    }
}

/* Row by row; above and below the input nothing but the value. */
static void run_pad(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t row_in = (uint32_t)eq_row(call->in[0]);
    const uint32_t row = (uint32_t)eq_row(call->out);
    part.out.shape[0] = 1;
    part.op.pad_top = 0;
    for (uint32_t y = 0; y < call->out->shape[0]; y++) {
        const uint32_t from = y - call->op->pad_top; /* wraps around above the input */
        part.call.input[0] = part.input;
        part.in[0].shape[0] = from < call->in[0]->shape[0] ? 1 : 0;
        if (part.in[0].shape[0] != 0) {
            part.call.input[0] =
                eq_load_run(call->in[0], call->input[0], from * row_in, row_in, part.input);
        }
        compute(&part, call, y * row, row);
    }
}

/* Row by row; where rows are joined, each comes from one of the inputs. */
static void run_concat(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t row = (uint32_t)eq_row(call->out);
    const uint32_t height = call->in[0]->shape[0];
    part.out.shape[0] = 1;
    for (uint32_t y = 0; y < call->out->shape[0]; y++) {
        int8_t *to = part.input;
        for (uint32_t i = 0; i < 2; i++) {
            const int stacked = call->op->parameter == 0;
            const uint32_t from = stacked && i == 1 ? y - height : y; /* wraps around before it */
            const uint32_t length = (uint32_t)eq_row(call->in[i]);
            part.call.input[i] = to;
            part.in[i].shape[0] = from < call->in[i]->shape[0] ? 1 : 0;
            if (part.in[i].shape[0] != 0) {
                part.call.input[i] =
                    eq_load_run(call->in[i], call->input[i], from * length, length, to);
            }
            to += eq_rows_padded(call->in[i], length);
        }
        compute(&part, call, y * row, row);
    }
}

/* Addition and tables: value by value, of one or two inputs. */
static void run_values(const eq_call_t *call)
{
    part_t part;
    begin(&part, call);
    const uint32_t count = eq_elements(call->out);
    int8_t values[2][CHUNK];
    part.output = values[0]; /* these may be in place */
    for (uint32_t first = 0; first < count; first += CHUNK) {
        const uint32_t length = count - first < CHUNK ? count - first : CHUNK;
        set_shape(&part.out, 1, 1, length);
        for (uint32_t i = 0; i < 2; i++) {
            set_shape(&part.in[i], 1, 1, length);
            part.call.input[i] = eq_load_run(call->in[i], call->input[i], first, length, values[i]);
        }
        compute(&part, call, first, length);
    }
}

void eq_rows_s8_ref(const eq_call_t *call)
{
    switch (call->kernel->family) {
    case EQ_FAMILY_FC:
        run_fc(call);
        break;
    case EQ_FAMILY_POOL:
        run_pool(call);
        break;
    case EQ_FAMILY_SOFTMAX:
        run_softmax(call);
        break;
    case EQ_FAMILY_ADD:
    case EQ_FAMILY_AFFINE:
    case EQ_FAMILY_TABLE:
        run_values(call);
        break;
    case EQ_FAMILY_PAD:
        run_pad(call);
        break;
    case EQ_FAMILY_CONCAT:
        run_concat(call);
        break;
    case EQ_FAMILY_CONV:
    case EQ_FAMILY_GROUPED:
    case EQ_FAMILY_DEPTHWISE:
        run_windows(call);
        break;
    default:
        break; /* eq_init has refused it */
    }
}
