/*
 * Pixels are taken four at a time, the last ones singly: the values under their windows are widened
 * to scratch (a "strip"), where they meet the weights of every channel.
 */
#include "eq_pairs.h"

#include "eq_dsp.h"
#include "eq_rows.h"
#include "eq_window.h"

enum {
    PIXELS = 4, /* of a strip */
    GROUP = 4   /* weights of a word */
};

/* What of the sum is in each word, for `values` (v0, v1, v2, v3). */
static inline uint32_t high_word(uint32_t values)
{
    return eq_sxtb16_odd(values);
}

/* 256·v0 − v1 + 127 is v0 above 127 − v1, which is v1 with the bits below its sign inverted. */
static inline uint32_t low_word(uint32_t values)
{
    return eq_rev16(values) ^ 0x007F007Fu;
}

/// The loops, in C; in eq_pairs_dsp.S where the core has the instructions ///

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

void eq_pairs_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                   int8_t *output, uint32_t stride, uint32_t count, uint32_t groups);
void eq_pairs_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                  int8_t *output, uint32_t pairs, uint32_t groups);
void eq_pairs_widen_four(uint32_t *strip, const int8_t *a, const int8_t *b, const int8_t *c,
                         const int8_t *d, uint32_t groups);

#else

/* From 256 times a sum to a value. */
static int8_t requantize(int32_t sum, const int32_t *stage)
{
    const int32_t right = stage[EQ_STAGE_SHIFT] & 0xFF;
    const int32_t scaled = sum >> (stage[EQ_STAGE_SHIFT] >> 8 & 0xFF);
    const int64_t product = (int64_t)scaled * stage[EQ_STAGE_MULTIPLIER] + (INT64_C(1) << 31);
    int32_t value = (int32_t)(product >> 32);
    value += right != 0 && value < 0 ? -1 : 0;
    return (int8_t)eq_clamp((value + stage[EQ_STAGE_OFFSET]) >> right, INT8_MIN, INT8_MAX);
}

/* All pairs of channels of one pixel, whose words of a group are `high` and `low` apart. */
static void one_pixel(const uint32_t *strip, uint32_t step, uint32_t low, const uint32_t *weights,
                      const int32_t *stages, int8_t *output, uint32_t pairs, uint32_t groups)
{
    for (uint32_t pair = 0; pair < pairs; pair++) {
        for (uint32_t c = 0; c < 2; c++) {
            uint32_t sum = (uint32_t)stages[EQ_STAGE_SUM + c];
            for (uint32_t i = 0; i < groups; i++) { /* in steps that cannot overflow */
                const uint32_t h = weights[2 * i + c];
                sum += (uint32_t)eq_smlad(h, strip[i * step], 0);
                sum += (uint32_t)eq_smlad(eq_sxtb16(h), strip[i * step + low], 0);
            }
            output[2 * pair + c] = requantize((int32_t)sum, stages + c * EQ_STAGE_STEP);
        }
        weights += (size_t)2 * groups;
        stages += EQ_STAGE_WORDS;
    }
}

/*
 * Pixels lie `stride` bytes apart in the output; in the strip their words alternate. `count` pairs of
 * channels of one strip, or, with EQ_STRIPS, one pair of `count` strips.
 */
static void eq_pairs_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                          int8_t *output, uint32_t stride, uint32_t count, uint32_t groups)
{
    const uint32_t strips = (count & EQ_STRIPS) != 0 ? count & ~EQ_STRIPS : 1;
    const uint32_t pairs = (count & EQ_STRIPS) != 0 ? 1 : count;
    for (uint32_t i = 0; i < strips * PIXELS; i++) {
        one_pixel(strip + i / PIXELS * (2 * PIXELS * groups) + i % PIXELS, 2 * PIXELS, PIXELS,
                  weights, stages, output + i * stride, pairs, groups);
    }
}

static void eq_pairs_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                         int8_t *output, uint32_t pairs, uint32_t groups)
{
    one_pixel(strip, 2, 1, weights, stages, output, pairs, groups);
}

/* The words of a group: high of each pixel, low of each pixel. */
static void eq_pairs_widen_four(uint32_t *strip, const int8_t *a, const int8_t *b, const int8_t *c,
                                const int8_t *d, uint32_t groups)
{
    const int8_t *const pixels[PIXELS] = {a, b, c, d};
    for (uint32_t i = 0; i < groups; i++) {
        for (uint32_t p = 0; p < PIXELS; p++) {
            const uint32_t values = eq_load_quad(pixels[p] + (size_t)GROUP * i);
            strip[p] = high_word(values);
            strip[PIXELS + p] = low_word(values);
        }
        strip += 2 * PIXELS;
    }
}

#endif

/// Sizes ///

uint64_t eq_pairs_groups(uint64_t count)
{
    return (count + GROUP - 1) / GROUP;
}

uint64_t eq_pairs_table_bytes(uint64_t channels)
{
    return (channels + 1) / 2 * EQ_STAGE_WORDS * sizeof(int32_t);
}

static uint64_t weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    (void)bits;
    return (channels + 1) / 2 * 2 * eq_pairs_groups(count) * sizeof(uint32_t);
}

/* Whether no window reaches beyond the input and a row of each is a run of values. */
static int all_clear(const eq_operator_t *op, const eq_tensor_record_t *in,
                     const eq_tensor_record_t *out)
{
    const uint64_t bottom = (uint64_t)(out->shape[0] - 1) * op->stride_height +
                            (uint64_t)op->kernel_height * op->dilation_height;
    const uint64_t right = (uint64_t)(out->shape[1] - 1) * op->stride_width + op->kernel_width;
    return (op->pad_top | op->pad_left) == 0 && op->dilation_width == 1 && right <= in->shape[1] &&
           bottom < (uint64_t)in->shape[0] + op->dilation_height;
}

static uint64_t strip_pixels(const eq_tensor_record_t *out)
{
    const uint64_t pixels = (uint64_t)out->shape[0] * out->shape[1];
    return pixels < PIXELS ? pixels : PIXELS;
}

/*
 * For each pixel of a strip a row of its window, or the window where its rows are no whole groups;
 * nothing where all can be read as it lies.
 */
static uint64_t patch_bytes(const eq_operator_t *op, const eq_tensor_record_t *in,
                            const eq_tensor_record_t *out, uint64_t groups)
{
    const uint64_t run = (uint64_t)op->kernel_width * in->shape[2];
    const uint64_t pixels = strip_pixels(out);
    const int point = op->kernel_height == 1 && op->kernel_width == 1 && pixels == 1;
    if (all_clear(op, in, out) && (run % GROUP == 0 || point)) {
        return 0;
    }
    return (pixels * (run % GROUP == 0 ? run : GROUP * groups) + 7) / 8 * 8;
}

uint64_t eq_pairs_scratch(const eq_operator_t *op, const eq_tensor_record_t *in,
                          const eq_tensor_record_t *out, uint64_t count)
{
    const uint64_t groups = eq_pairs_groups(count);
    return 2 * sizeof(uint32_t) * groups * strip_pixels(out) + patch_bytes(op, in, out, groups);
}

/// What eq_init checks ///

/* Whether the second half of a stage says what the short way is exact for. */
static int stage_fits(const int32_t *stage, int32_t zero_point, int32_t any)
{
    const uint32_t shifts = (uint32_t)(stage[EQ_STAGE_SHIFT] ^ any);
    const uint32_t right = shifts & 0xFFu;
    const uint32_t left = EQ_PAIRS_MOST_LEFT - (shifts >> 8);
    const int32_t multiplier = stage[EQ_STAGE_MULTIPLIER];
    if (right > EQ_PAIRS_MOST_RIGHT || left > EQ_PAIRS_MOST_LEFT || (right != 0 && left != 0)) {
        return 0;
    }
    const int32_t half = right != 0 ? 1 << (right - 1u) : 0;
    return stage[EQ_STAGE_OFFSET] == half + zero_point * (int32_t)(1u << right) &&
           (multiplier == 0 || multiplier >= 1 << 30);
}

/* The least and greatest sum of a channel, whatever the values, stays below 2^23. */
static int sums_fit(const eq_call_t *call, const uint32_t *row, eq_pairs_word_t word,
                    uint32_t channel, int32_t first, uint32_t groups)
{
    const int32_t greatest = (1 << (eq_width(call->in[0]->bits) - 1u)) - 1;
    int64_t low = 0, high = 0, even = 0;
    for (uint32_t i = 0; i < groups; i++) {
        uint32_t halves = word(call, row, groups, 2 * i + channel);
        for (uint32_t half = 0; half < 2; half++) {
            const int32_t h = (int16_t)halves;
            const int32_t w[2] = {(int8_t)halves, (h - (int8_t)halves) / 256};
            even += w[0];
            for (uint32_t k = 0; k < 2; k++) {
                low += w[k] * (w[k] < 0 ? greatest : -greatest - 1);
                high += w[k] * (w[k] < 0 ? -greatest - 1 : greatest);
            }
            halves >>= 16;
        }
    }
    const int32_t start = (int32_t)((uint32_t)first + (uint32_t)(127 * even));
    const int64_t most = (INT64_C(1) << 23) - 1;
    return start % 256 == 0 && low + start / 256 >= -most && high + start / 256 <= most;
}

int eq_pairs_fits(const eq_call_t *call, uint32_t groups, uint32_t row_words, eq_pairs_word_t word)
{
    const uint32_t *row = (const void *)call->weights;
    const int32_t *stage = call->bias;
    for (uint32_t pair = 0; pair < (call->out->shape[2] + 1) / 2; pair++) {
        const int none = (stage[EQ_STAGE_SHIFT] & 0xFF) == 0 ||
                         (stage[EQ_STAGE_SHIFT + EQ_STAGE_STEP] & 0xFF) == 0;
        for (uint32_t c = 0; c < 2; c++) {
            const int32_t any = c == 0 && none ? EQ_STAGE_ANY : 0;
            if (!stage_fits(stage + c * EQ_STAGE_STEP, call->out->zero_point, any) ||
                !sums_fit(call, row, word, c, stage[EQ_STAGE_SUM + c], groups)) {
                return 0;
            }
        }
        row += row_words;
        stage += EQ_STAGE_WORDS;
    }
    return 1;
}

static uint32_t stored_word(const eq_call_t *call, const uint32_t *row, uint32_t groups, uint32_t j)
{
    (void)call;
    (void)groups;
    return row[j];
}

static int fits(const eq_call_t *call, uint32_t count)
{
    const uint32_t groups = (uint32_t)eq_pairs_groups(count);
    return call->op->weight_bits == 8 && eq_pairs_fits(call, groups, 2 * groups, stored_word);
}

const eq_layout_rules_t eq_pairs_rules = {
    EQ_LAYOUT_PAIRS, 0, weight_bytes, eq_pairs_table_bytes, eq_pairs_scratch, fits, NULL};

void eq_pairs_pixel(eq_pixel_t *pixel, const eq_call_t *call)
{
    pixel->call = *call;
    pixel->op = *call->op;
    pixel->in = *call->in[0];
    pixel->op.kernel_height = pixel->op.kernel_width = 1;
    pixel->op.stride_height = pixel->op.stride_width = 1;
    pixel->op.dilation_height = pixel->op.dilation_width = 1;
    pixel->op.pad_top = pixel->op.pad_left = 0;
    pixel->in.shape[2] = eq_elements(&pixel->in);
    pixel->in.shape[0] = pixel->in.shape[1] = 1;
    pixel->call.op = &pixel->op;
    pixel->call.in[0] = &pixel->in;
}

/// Gathering ///

/* What is the same for every pixel, and which pixel is next. */
typedef struct {
    const eq_call_t *call;
    uint32_t groups;
    uint32_t run;   /* values of a kernel row */
    uint32_t width; /* of the output */
    int32_t y;      /* where the window begins */
    int32_t x;
    uint32_t column;
    int clear; /* every pixel */
    int8_t *patch;
    const int8_t *point; /* the next pixel, where windows are points side by side; or NULL */
} walk_t;

/* In words, of which the last may overlap the one before it. */
static inline void copy(int8_t *to, const int8_t *from, uint32_t count)
{
    if (count < 4) {
        for (uint32_t i = 0; i < count; i++) {
            to[i] = from[i];
        }
        return;
    }
    const int8_t *last = from + count - 4;
    int8_t *last_to = to + count - 4;
    for (; from < last; from += 4) {
        eq_store_quad(to, eq_load_quad(from));
        to += 4;
    }
    eq_store_quad(last_to, eq_load_quad(last));
}

static int8_t *fill(int8_t *to, int32_t value, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        to[i] = (int8_t)value;
    }
    return to + count;
}

static const int8_t *values_at(const walk_t *walk, int32_t y, int32_t x)
{
    const uint32_t *shape = walk->call->in[0]->shape;
    return walk->call->input[0] + (y * (int32_t)shape[1] + x) * (int32_t)shape[2];
}

/* The values under a row of the window whose corner is (y, x): where they lie, or in `patch`. */
static const int8_t *row_values(const walk_t *walk, int32_t y, int32_t x, int8_t *patch)
{
    const eq_operator_t *op = walk->call->op;
    const uint32_t *shape = walk->call->in[0]->shape;
    const int32_t nothing = walk->call->in[0]->zero_point;
    if (y < 0 || y >= (int32_t)shape[0]) {
        (void)fill(patch, nothing, walk->run);
        return patch;
    }
    if (op->dilation_width == 1 && x >= 0 && x + op->kernel_width <= (int32_t)shape[1]) {
        return values_at(walk, y, x);
    }
    const eq_span_t span = eq_clip(x, op->kernel_width, op->dilation_width, (int32_t)shape[1]);
    const int32_t taps = op->dilation_width == 1 ? span.last - span.first : 1;
    int8_t *to = fill(patch, nothing, (uint32_t)span.first * shape[2]);
    for (int32_t kx = span.first; kx < span.last; kx += taps) {
        copy(to, values_at(walk, y, x + kx * op->dilation_width), (uint32_t)taps * shape[2]);
        to += (uint32_t)taps * shape[2];
    }
    (void)fill(to, nothing, (uint32_t)(op->kernel_width - span.last) * shape[2]);
    return patch;
}

static void next_pixel(walk_t *walk)
{
    const eq_operator_t *op = walk->call->op;
    walk->x += op->stride_width;
    walk->column++;
    if (walk->column == walk->width) {
        walk->column = 0;
        walk->x = -op->pad_left;
        walk->y += op->stride_height;
    }
}

/* Whether every tap of the window at hand lies inside the input, and its rows are runs. */
static int is_clear(const walk_t *walk)
{
    const eq_operator_t *op = walk->call->op;
    const uint32_t *shape = walk->call->in[0]->shape;
    const int32_t last = walk->y + (op->kernel_height - 1) * op->dilation_height;
    return walk->clear ||
           (walk->y >= 0 && walk->x >= 0 && last < (int32_t)shape[0] &&
            walk->x + op->kernel_width <= (int32_t)shape[1] && op->dilation_width == 1);
}

/* The words of one pixel; `count` values, filled up to a group. */
static uint32_t *widen_one(uint32_t *strip, const int8_t *values, uint32_t count)
{
    for (; count >= GROUP; count -= GROUP) {
        const uint32_t quad = eq_load_quad(values);
        *strip++ = high_word(quad);
        *strip++ = low_word(quad);
        values += GROUP;
    }
    if (count != 0) {
        int8_t last[GROUP] = {0};
        copy(last, values, count);
        *strip++ = high_word(eq_load_quad(last));
        *strip++ = low_word(eq_load_quad(last));
    }
    return strip;
}

/* Windows whose rows are whole groups: row by row. */
static void gather_rows(const walk_t *walk, const int32_t *y, const int32_t *x, uint32_t *strip)
{
    const eq_operator_t *op = walk->call->op;
    const uint32_t *shape = walk->call->in[0]->shape;
    const uint32_t groups = walk->run / GROUP;
    uint32_t height[PIXELS]; /* of the input, 0 where columns are outside it */
    for (uint32_t i = 0; i < PIXELS; i++) {
        const int inside = x[i] >= 0 && x[i] + op->kernel_width <= (int32_t)shape[1];
        height[i] = inside && op->dilation_width == 1 ? shape[0] : 0;
    }
    int32_t down = 0;
    for (uint32_t ky = 0; ky < op->kernel_height; ky++) {
        const int8_t *rows[PIXELS];
        for (uint32_t i = 0; i < PIXELS; i++) {
            const int32_t row = y[i] + down;
            rows[i] = (uint32_t)row < height[i]
                          ? values_at(walk, row, x[i])
                          : row_values(walk, row, x[i], walk->patch + i * walk->run);
        }
        eq_pairs_widen_four(strip, rows[0], rows[1], rows[2], rows[3], groups);
        strip += groups * 2 * PIXELS;
        down += op->dilation_height;
    }
}

/* A window that lies inside the input. */
EQ_NOINLINE static void copy_window(const walk_t *walk, int32_t y, int32_t x, int8_t *patch)
{
    const uint32_t *shape = walk->call->in[0]->shape;
    const uint32_t pitch = walk->call->op->dilation_height * shape[1] * shape[2];
    const uint32_t run = walk->run;
    const int8_t *values = values_at(walk, y, x);
    const int8_t *end = patch + walk->call->op->kernel_height * run;
    for (;;) {
        copy(patch, values, run);
        patch += run;
        if (patch == end) {
            return;
        }
        values += pitch;
    }
}

/* The window whose corner is (y, x), in the patch. */
static void gather_window(const walk_t *walk, int32_t y, int32_t x, int8_t *patch)
{
    for (uint32_t ky = 0; ky < walk->call->op->kernel_height; ky++) {
        const int8_t *values = row_values(walk, y, x, patch);
        if (values != patch) {
            copy(patch, values, walk->run);
        }
        patch += walk->run;
        y += walk->call->op->dilation_height;
    }
}

/* Windows that lie inside the input. */
static void gather_clear(const walk_t *walk, const int32_t *y, const int32_t *x, uint32_t *strip)
{
    const uint32_t *shape = walk->call->in[0]->shape;
    const uint32_t pitch = walk->call->op->dilation_height * shape[1] * shape[2];
    const uint32_t end = walk->call->op->kernel_height * pitch;
    const int8_t *values[PIXELS];
    for (uint32_t i = 0; i < PIXELS; i++) {
        values[i] = values_at(walk, y[i], x[i]);
    }
    for (uint32_t at = 0; at < end; at += pitch) {
        eq_pairs_widen_four(strip, values[0] + at, values[1] + at, values[2] + at, values[3] + at,
                            walk->run / GROUP);
        strip += walk->run / GROUP * (2 * PIXELS);
    }
}

/* The next four pixels. */
static void gather_four(walk_t *walk, uint32_t *strip)
{
    const int whole = walk->run % GROUP == 0;
    int32_t y[PIXELS], x[PIXELS];
    int clear[PIXELS], all = whole;
    if (walk->point != NULL) {
        const int8_t *values = walk->point;
        const uint32_t step = walk->run;
        eq_pairs_widen_four(strip, values, values + step, values + 2 * step, values + 3 * step,
                            walk->groups);
        walk->point += PIXELS * step;
        return;
    }
    for (uint32_t i = 0; i < PIXELS; i++) {
        y[i] = walk->y;
        x[i] = walk->x;
        clear[i] = is_clear(walk);
        all = all && clear[i];
        next_pixel(walk);
    }
    if (all) {
        gather_clear(walk, y, x, strip);
    } else if (whole) {
        gather_rows(walk, y, x, strip);
    } else {
        const uint32_t size = GROUP * walk->groups;
        for (uint32_t i = 0; i < PIXELS; i++) {
            if (clear[i]) {
                copy_window(walk, y[i], x[i], walk->patch + i * size);
            } else {
                gather_window(walk, y[i], x[i], walk->patch + i * size);
            }
        }
        eq_pairs_widen_four(strip, walk->patch, walk->patch + size, walk->patch + 2 * size,
                            walk->patch + 3 * size, walk->groups);
    }
}

/* The next pixel alone. */
static void gather_one(walk_t *walk, uint32_t *strip)
{
    const uint32_t rows = walk->call->op->kernel_height;
    if (walk->point != NULL) {
        (void)widen_one(strip, walk->point, walk->run);
        walk->point += walk->run;
        return;
    }
    if (walk->run % GROUP == 0 || (rows == 1 && walk->clear)) {
        int32_t y = walk->y;
        for (uint32_t ky = 0; ky < rows; ky++) {
            strip = widen_one(strip, row_values(walk, y, walk->x, walk->patch), walk->run);
            y += walk->call->op->dilation_height;
        }
    } else {
        gather_window(walk, walk->y, walk->x, walk->patch);
        (void)widen_one(strip, walk->patch, walk->run * rows);
    }
    next_pixel(walk);
}

/* The next `pixels` pixels: whole strips, then the others one after the other. */
static void gather(walk_t *walk, uint32_t *strip, uint32_t pixels)
{
    for (; pixels >= PIXELS; pixels -= PIXELS) {
        gather_four(walk, strip);
        strip += (size_t)2 * PIXELS * walk->groups;
    }
    for (; pixels > 0; pixels--) {
        gather_one(walk, strip);
        strip += (size_t)2 * walk->groups;
    }
}

/// Multiplying ///

/* What was gathered meets `pairs` pairs of channels, of which `channel` is the first. */
static void multiply(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                     const uint32_t *weights, uint32_t channel, uint32_t pairs, int8_t *output)
{
    const uint32_t channels = walk->call->out->shape[2];
    const uint32_t groups = walk->groups;
    const int32_t *stages = walk->call->bias + (size_t)EQ_STAGE_WORDS / 2 * channel;
    output += channel;
    if (pixels >= PIXELS) {
        const uint32_t strips = pixels / PIXELS;
        eq_pairs_four(strip, weights, stages, output, channels,
                      strips == 1 ? pairs : strips | EQ_STRIPS, groups);
        strip += (size_t)2 * PIXELS * groups * strips;
        output += strips * PIXELS * channels;
        pixels %= PIXELS;
    }
    for (; pixels > 0; pixels--) {
        eq_pairs_one(strip, weights, stages, output, pairs, groups);
        strip += (size_t)2 * groups;
        output += channels;
    }
}

/* As `multiply` for the last channel, whose pair has no second: its values go nowhere. */
static void multiply_last(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                          const uint32_t *weights, int8_t *output)
{
    const uint32_t channels = walk->call->out->shape[2];
    const int32_t *stages = walk->call->bias + (size_t)EQ_STAGE_WORDS / 2 * (channels - 1);
    for (uint32_t i = 0; i < pixels; i++) {
        int8_t values[2 * PIXELS];
        uint32_t done = 1;
        if (pixels - i >= PIXELS) {
            eq_pairs_four(strip, weights, stages, values, 2, 1, walk->groups);
            done = PIXELS;
        } else {
            eq_pairs_one(strip, weights, stages, values, 1, walk->groups);
        }
        for (uint32_t j = 0; j < done; j++) {
            output[(i + j) * channels + channels - 1] = values[2 * j];
        }
        strip += (size_t)2 * walk->groups * done;
        i += done - 1;
    }
}

static void clamp(const eq_call_t *call)
{
    const int32_t low = call->op->clamp_min;
    const int32_t high = call->op->clamp_max;
    if (low == INT8_MIN && high == INT8_MAX) {
        return;
    }
    const uint32_t count = eq_elements(call->out);
    for (uint32_t i = 0; i < count; i++) {
        call->output[i] = (int8_t)eq_clamp(call->output[i], low, high);
    }
}

/* What was gathered meets every channel, of weights as they are stored. */
static void multiply_stored(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                            int8_t *output)
{
    const uint32_t channels = walk->call->out->shape[2];
    const uint32_t *weights = (const void *)walk->call->weights;
    if (channels >= 2) {
        multiply(walk, strip, pixels, weights, 0, channels / 2, output);
    }
    if (channels % 2 != 0) {
        weights += (size_t)(channels / 2) * 2 * walk->groups;
        multiply_last(walk, strip, pixels, weights, output);
    }
}

/* The same, of weights that are unpacked for two channels at a time. */
static void multiply_unpacked(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                              const eq_pairs_source_t *source, int8_t *output)
{
    const uint32_t channels = walk->call->out->shape[2];
    const uint32_t *weights = (const void *)walk->call->weights;
    uint32_t *row = walk->call->scratch;
    for (uint32_t channel = 0; channel < channels; channel += 2) {
        source->unpack(row, weights, source->blocks, source);
        if (channel + 1 < channels) {
            multiply(walk, strip, pixels, row, channel, 1, output);
        } else {
            multiply_last(walk, strip, pixels, row, output);
        }
        weights += source->stored;
    }
}

void eq_pairs_run(const eq_call_t *call, uint32_t count, const eq_pairs_source_t *source)
{
    const eq_operator_t *op = call->op;
    const uint32_t channels = call->out->shape[2];
    const uint32_t size = call->out->shape[0] * call->out->shape[1];
    walk_t walk = {.call = call,
                   .groups = (uint32_t)eq_pairs_groups(count),
                   .run = op->kernel_width * call->in[0]->shape[2],
                   .width = call->out->shape[1],
                   .y = -op->pad_top,
                   .x = -op->pad_left,
                   .clear = all_clear(op, call->in[0], call->out)};
    const uint32_t patch = (uint32_t)patch_bytes(op, call->in[0], call->out, walk.groups);
    walk.patch = (int8_t *)call->scratch + op->scratch_bytes - patch;
    if (walk.clear && op->kernel_height == 1 && op->kernel_width == 1 && walk.run % GROUP == 0 &&
        op->stride_width == 1 && op->stride_height == 1 && walk.width == call->in[0]->shape[1]) {
        walk.point = call->input[0];
    }
    uint32_t *strip = (uint32_t *)call->scratch + source->words;
    uint32_t batch = PIXELS;
    if (source->unpack != NULL) { /* as many strips as there is room for */
        const uint32_t strip_bytes = 2 * PIXELS * walk.groups * (uint32_t)sizeof *strip;
        const uint32_t strips = (op->scratch_bytes - patch - 4 * source->words) / strip_bytes;
        batch = strips > 1 ? strips * PIXELS : PIXELS;
    }
    for (uint32_t first = 0; first < size; first += batch) {
        const uint32_t pixels = size - first < batch ? size - first : batch;
        int8_t *output = call->output + (size_t)first * channels;
        gather(&walk, strip, pixels);
        if (source->unpack != NULL) {
            multiply_unpacked(&walk, strip, pixels, source, output);
        } else {
            multiply_stored(&walk, strip, pixels, output);
        }
    }
    clamp(call);
}
