/*
 * Depthwise convolution 3×3, int8, weights of 2..8 bits, one channel at a time: vertical pairs of
 * inputs meet vertical pairs of weights in SMLAD, columns stream by, and at stride 1 two rows of
 * outputs share what they read.
 *
 * Outside the input lies the zero point: a row of it stands in scratch, columns of it are constants.
 */
#include "eq_depthwise.h"
#include "eq_dsp.h"

#define TAPS 9u

/* Rows of the output that are taken alike, in channel 0: pairs of them, at stride 2 single ones. */
typedef struct {
    const int8_t *row[4]; /* of the input */
    int8_t *output[2];
    int32_t count;
} rows_t;

/* The first, those whose windows lie inside, the last: what `serves` demands leaves no more. */
enum { MOST_ROWS = 3 };

/*
 * A channel, and all that the channels share. Weights and sums are twice what they are, which saves
 * requantisation a shift. The order is that of eq_depthwise_3x3.S, distances are in bytes.
 */
typedef struct {
    eq_requantize_t scale;
    int32_t bias;        /* less the zero point's share */
    uint32_t taps[3][2]; /* a column of weights: rows 0 and 1, rows 1 and 2 */
    int32_t left;        /* the bias where column 0 of a window lies outside */
    int32_t right;       /* to add where column 2 does */
    const rows_t *rows;
    int32_t used; /* of them */
    int32_t channel;
    int32_t lag;         /* stride 1: how far the input is ahead where a value goes out */
    int32_t singles_end; /* and where it ends the columns taken singly, */
    int32_t triples_end; /* and then those taken by three */
    int32_t step;        /* from column to column, of input and output */
    int32_t outside_left;
    int32_t outside_right;
    int32_t input_next; /* from pair to pair, or row to row */
    int32_t output_next;
    int32_t length; /* of the columns of a row of the output whose windows end inside */
} eq_depthwise_run_t;

/// The loops, in C; in eq_depthwise_3x3.S where the core has the instructions ///

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

typedef char eq_run_is_what_the_loops_read[sizeof(eq_depthwise_run_t) == 96 ? 1 : -1];

void eq_depthwise_3x3_two_rows(const eq_depthwise_run_t *run); /* stride 1 */
void eq_depthwise_3x3_one_row(const eq_depthwise_run_t *run);  /* stride 2 */

#else

/* Two sums: of the upper and of the lower row of outputs. */
typedef struct {
    int32_t up;
    int32_t down;
} sums_t;

/* Column `at` of four rows meets column `tap` of the window. */
static sums_t add_column(const eq_depthwise_run_t *run, const int8_t *const row[4], uint32_t tap,
                         int32_t at, sums_t sums)
{
    const uint32_t *taps = run->taps[tap];
    const uint32_t top = eq_pkhbt(row[0][at], row[1][at]);
    const uint32_t bottom = eq_pkhbt(row[2][at], row[3][at]);
    sums.up = eq_smlatb(taps[1], bottom, eq_smlad(taps[0], top, sums.up));
    sums.down = eq_smlad(taps[1], bottom, eq_smlabt(taps[0], top, sums.down));
    return sums;
}

/* The upper row is stored last: it may lie on the lower one. */
static void finish_column(const eq_depthwise_run_t *run, const rows_t *rows, int32_t at,
                          sums_t sums)
{
    rows->output[1][at] = (int8_t)eq_requantize_twice(run->scale, sums.down);
    rows->output[0][at] = (int8_t)eq_requantize_twice(run->scale, sums.up);
}

static void one_pair(const eq_depthwise_run_t *run, const rows_t *rows)
{
    const sums_t start = {run->bias, run->bias};
    const sums_t left = {run->left, run->left};
    sums_t sums[2] = {left, start};
    int32_t at = 0;
    if (!run->outside_left) {
        sums[0] = add_column(run, rows->row, 0, at, start);
        at += run->step;
    }
    sums[0] = add_column(run, rows->row, 1, at, sums[0]);
    sums[1] = add_column(run, rows->row, 0, at, start);
    int32_t to = 0;
    for (; to < run->length; to += run->step) {
        at += run->step;
        finish_column(run, rows, to, add_column(run, rows->row, 2, at, sums[0]));
        sums[0] = add_column(run, rows->row, 1, at, sums[1]);
        sums[1] = add_column(run, rows->row, 0, at, start);
    }
    if (run->outside_right) {
        sums[0].up += run->right;
        sums[0].down += run->right;
        finish_column(run, rows, to, sums[0]);
    }
}

static int32_t add_three(const eq_depthwise_run_t *run, const int8_t *const row[4], uint32_t tap,
                         int32_t at, int32_t sum)
{
    sum = eq_smlad(run->taps[tap][0], eq_pkhbt(row[0][at], row[1][at]), sum);
    return eq_smlatb(run->taps[tap][1], (uint32_t)row[2][at], sum);
}

static void one_row(const eq_depthwise_run_t *run, const rows_t *rows)
{
    int32_t sum = run->outside_left ? run->left : add_three(run, rows->row, 0, 0, run->bias);
    int32_t at = run->outside_left ? 0 : run->step;
    int32_t to = 0;
    for (; to < run->length; to += run->step) {
        sum = add_three(run, rows->row, 1, at, sum);
        at += run->step;
        sum = add_three(run, rows->row, 2, at, sum);
        rows->output[0][to] = (int8_t)eq_requantize_twice(run->scale, sum);
        sum = add_three(run, rows->row, 0, at, run->bias);
        at += run->step;
    }
    if (run->outside_right) {
        sum = add_three(run, rows->row, 1, at, sum) + run->right;
        rows->output[0][to] = (int8_t)eq_requantize_twice(run->scale, sum);
    }
}

static void all_rows(const eq_depthwise_run_t *run,
                     void (*compute)(const eq_depthwise_run_t *run, const rows_t *rows))
{
    for (int32_t i = 0; i < run->used; i++) {
        rows_t rows = run->rows[i];
        int32_t input = run->channel, output = input;
        for (int32_t left = rows.count; left > 0; left--) {
            for (uint32_t k = 0; k < 4; k++) {
                rows.row[k] += input;
            }
            rows.output[0] += output;
            rows.output[1] += output;
            compute(run, &rows);
            input = run->input_next;
            output = run->output_next;
        }
    }
}

static void eq_depthwise_3x3_two_rows(const eq_depthwise_run_t *run)
{
    all_rows(run, one_pair);
}

static void eq_depthwise_3x3_one_row(const eq_depthwise_run_t *run)
{
    all_rows(run, one_row);
}

#endif

/// Channels ///

static void load_channel(const eq_call_t *call, uint32_t index, eq_depthwise_run_t *run)
{
    const int8_t *weights = eq_weight_row(call, index, TAPS);
    const int32_t zero_point = call->in[0]->zero_point;
    const int32_t multiplier = call->multiplier[index];
    uint32_t bias = 2u * (uint32_t)call->bias[index]; /* wraps around, as sums do */
    int32_t share = 0;
    for (uint32_t i = 3; i-- > 0;) {
        const int32_t top = 2 * weights[i];
        const int32_t middle = 2 * weights[3 + i];
        const int32_t bottom = 2 * weights[6 + i];
        run->taps[i][0] = eq_pkhbt(top, middle);
        run->taps[i][1] = eq_pkhbt(middle, bottom);
        share = zero_point * (top + middle + bottom);
        run->right = i == 2 ? share : run->right;
        bias -= (uint32_t)share;
    }
    run->bias = (int32_t)bias;
    run->left = (int32_t)(bias + (uint32_t)share);
    run->scale = eq_requantize_of(multiplier, multiplier == 0 ? -1 : call->shift[index],
                                  call->out->zero_point);
}

/// Rows ///

/* The row of zero points, in scratch behind unpacked weights. */
static int8_t *strip_of(const eq_call_t *call)
{
    const uint32_t taps = (uint32_t)call->op->kernel_height * call->op->kernel_width;
    return (int8_t *)call->scratch + (eq_stored_in_bytes(call->op) ? 0 : taps);
}

/* Four words at a time, then bytes. */
static void copy_bytes(int8_t *to, const int8_t *from, uint32_t count)
{
    for (; count >= 16; count -= 16) {
        const uint32_t quads[] = {eq_load_quad(from), eq_load_quad(from + 4),
                                  eq_load_quad(from + 8), eq_load_quad(from + 12)};
        for (uint32_t i = 0; i < 4; i++) {
            eq_store_quad(to + 4 * i, quads[i]);
        }
        to += 16;
        from += 16;
    }
    while (count-- > 0) {
        *to++ = *from++;
    }
}

static void fill_strip(const eq_call_t *call)
{
    int8_t *strip = strip_of(call);
    const uint32_t quad = 0x01010101u * (uint8_t)call->in[0]->zero_point;
    uint32_t count = call->in[0]->shape[1] * call->in[0]->shape[2];
    for (; count >= 4; count -= 4) {
        eq_store_quad(strip, quad);
        strip += 4;
    }
    for (; count > 0; count--) {
        *strip++ = (int8_t)quad;
    }
}

/* A row of the input, or of its zero point. */
static const int8_t *input_row(const eq_call_t *call, int32_t y)
{
    const int32_t height = (int32_t)call->in[0]->shape[0];
    const int32_t row = (int32_t)(call->in[0]->shape[1] * call->in[0]->shape[2]);
    return y < 0 || y >= height ? strip_of(call) : call->input[0] + y * row;
}

/* Rows y and what is taken with it; a second row that the output lacks is computed into the first. */
static rows_t rows_at(const eq_call_t *call, int32_t y, int8_t *output)
{
    const int32_t top = y * call->op->stride_height - call->op->pad_top;
    const int32_t length = (int32_t)eq_row(call->out);
    rows_t rows = {.count = 1};
    for (int32_t i = 0; i < 4; i++) {
        rows.row[i] = input_row(call, top + i);
    }
    rows.output[0] = output;
    rows.output[1] = output + (y + 1 < (int32_t)call->out->shape[0] ? length : 0);
    return rows;
}

static int32_t split_rows(const eq_call_t *call, int32_t each, rows_t all[MOST_ROWS])
{
    const int32_t stride = call->op->stride_height;
    const int32_t end = (int32_t)call->out->shape[0];
    int32_t used = 0;
    int inside = 0;
    for (int32_t y = 0; y < end; y += each) {
        const int32_t top = y * stride - call->op->pad_top;
        const int was_inside = inside;
        inside = top >= 0 && top + 1 + each < (int32_t)call->in[0]->shape[0] && y + each <= end;
        if (inside && was_inside) {
            all[used - 1].count++;
        } else {
            all[used++] = rows_at(call, y, call->output + y * (int32_t)eq_row(call->out));
        }
    }
    return used;
}

/// The operator ///

/* Rows (axis 0) or columns that the last window has beyond the input. */
static int32_t beyond(const eq_call_t *call, uint32_t axis)
{
    const eq_operator_t *op = call->op;
    const int32_t last = ((int32_t)call->out->shape[axis] - 1) * op->stride_height;
    const int32_t before = axis == 0 ? op->pad_top : op->pad_left;
    return last - before + 3 - (int32_t)call->in[0]->shape[axis];
}

/* Whether all windows are of the one kind; kernels.py asks the same. */
static int serves(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    return op->kernel_height == 3 && op->kernel_width == 3 &&
           op->stride_height == op->stride_width && op->stride_height <= 2 &&
           op->dilation_height == 1 && op->dilation_width == 1 && op->pad_top <= 1 &&
           op->pad_left <= 1 && beyond(call, 0) <= 1 && beyond(call, 1) <= 1 &&
           call->out->shape[2] == call->in[0]->shape[2];
}

/* What all channels share. */
static void begin(const eq_call_t *call, eq_depthwise_run_t *run)
{
    const uint32_t *shape = call->out->shape;
    const int32_t rows = call->op->stride_height == 1 ? 2 : 1;
    const int32_t step = (int32_t)shape[2];
    run->outside_left = call->op->pad_left;
    run->outside_right = beyond(call, 1) > 0;
    const int32_t columns = (int32_t)shape[1] - run->outside_right;
    run->step = step;
    run->lag = (3 - run->outside_left) * step;
    run->singles_end = (2 - run->outside_left + columns % 3) * step;
    run->triples_end = (2 - run->outside_left + columns) * step;
    run->input_next = 2 * (int32_t)(call->in[0]->shape[1] * shape[2]);
    run->output_next = rows * (int32_t)(shape[1] * shape[2]);
    run->length = columns * step;
}

/* Whether a channel's scale is one that the loops compute with. */
static int scale_fits(const eq_call_t *call, uint32_t channel)
{
    return call->multiplier[channel] == 0 || eq_requantize_fits(call->shift[channel]);
}

/*
 * Whether channels may go one by one where the output lies over the input, whole rows before it: a
 * channel then writes where it has read itself, in columns that no loop reads again.
 */
static int channels_keep_apart(const eq_call_t *call)
{
    const int32_t distance = (int32_t)(call->input[0] - call->output);
    const int32_t row = (int32_t)eq_row(call->in[0]);
    int keep = call->out->shape[1] == call->in[0]->shape[1] && distance % row == 0;
    for (uint32_t i = 0; keep && i < call->out->shape[2]; i++) {
        keep = scale_fits(call, i);
    }
    return keep;
}

/* Rows first .. end of every channel, to `output`; those of `run`, if it serves. */
static void run_channels(const eq_call_t *call, eq_depthwise_run_t *run, uint32_t first,
                         uint32_t end, int8_t *output)
{
    void (*const compute)(const eq_depthwise_run_t *run) =
        call->op->stride_height == 1 ? eq_depthwise_3x3_two_rows : eq_depthwise_3x3_one_row;
    const uint32_t channels = call->out->shape[2];
    for (uint32_t i = 0; i < channels; i++) {
        if (run == NULL || !scale_fits(call, i)) {
            eq_depthwise_channel(call, i, first, end, output);
            continue;
        }
        load_channel(call, i, run);
        run->channel = (int32_t)i;
        compute(run);
    }
}

/* Where channels write what others still read, rows wait in scratch, behind the strip. */
static void run_over(const eq_call_t *call, eq_depthwise_run_t *run, rows_t *rows, uint32_t each)
{
    const uint32_t end = call->out->shape[0];
    const uint32_t length = (uint32_t)eq_row(call->out);
    int8_t *buffer = strip_of(call) + eq_row(call->in[0]);
    for (uint32_t y = 0; y < end; y += each) {
        const uint32_t last = y + each < end ? y + each : end;
        rows[0] = rows_at(call, (int32_t)y, buffer);
        run_channels(call, run, y, last, buffer);
        copy_bytes(call->output + y * length, buffer, (last - y) * length);
    }
}

void eq_depthwise_3x3_s8_dsp(const eq_call_t *call)
{
    const uint32_t each = call->op->stride_height == 1 ? 2 : 1;
    eq_depthwise_run_t run;
    eq_depthwise_run_t *used = NULL;
    rows_t rows[MOST_ROWS];
    if (serves(call)) {
        fill_strip(call);
        begin(call, &run);
        run.rows = rows;
        run.used = 1;
        used = &run;
    }
    if (!eq_lies_apart(call) && (used == NULL || !channels_keep_apart(call))) {
        run_over(call, used, rows, each);
    } else {
        if (used != NULL) {
            run.used = split_rows(call, (int32_t)each, rows);
        }
        run_channels(call, used, 0, call->out->shape[0], call->output);
    }
    eq_clamp_bytes(call->output, eq_elements(call->out), call->op->clamp_min, call->op->clamp_max);
}
