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
    GROUP = 4,  /* weights of a word */
    BLOCK = 8   /* words that share fields, where weights have fewer than 8 bits */
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
                   int8_t *output, uint32_t stride, uint32_t pairs, uint32_t groups);
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
static void pixel(const uint32_t *strip, uint32_t step, uint32_t low, const uint32_t *weights,
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

/* Pixels lie `stride` bytes apart in the output; in the strip their words alternate. */
static void eq_pairs_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                          int8_t *output, uint32_t stride, uint32_t pairs, uint32_t groups)
{
    for (uint32_t i = 0; i < PIXELS; i++) {
        pixel(strip + i, 2 * PIXELS, PIXELS, weights, stages, output + i * stride, pairs, groups);
    }
}

static void eq_pairs_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                         int8_t *output, uint32_t pairs, uint32_t groups)
{
    pixel(strip, 2, 1, weights, stages, output, pairs, groups);
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

/// Weights of fewer than 8 bits ///

/*
 * Word j of a block, as w + 2^(bits−1) in bytes: bits 0..3 of it in word j / 2 (where it has so
 * many), the next two in word j / 4 of two, the last in word 0 of one.
 */
static uint32_t field(const uint32_t *block, uint32_t bits, uint32_t j)
{
    uint32_t word = 0, shift = 0;
    if ((bits & 4u) != 0) {
        word = block[j / 2u] >> j % 2u * 4u & 0x0F0F0F0Fu;
        shift = 4;
        block += 4;
    }
    if ((bits & 2u) != 0) {
        word |= (block[j / 4u] >> j % 4u * 2u & 0x03030303u) << shift;
        shift += 2;
        block += 2;
    }
    if ((bits & 1u) != 0) {
        word |= (block[0] >> j & 0x01010101u) << shift;
    }
    return word;
}

static uint32_t offset_of(uint32_t bits)
{
    return (1u << (bits - 1u)) * 0x01010101u;
}

/* The words of two channels. */
static void unpack_row(uint32_t *to, const uint32_t *from, uint32_t bits, uint32_t blocks)
{
    const uint32_t offset = offset_of(bits);
    for (; blocks > 0; blocks--) {
        for (uint32_t j = 0; j < BLOCK; j++) {
            *to++ = eq_ssub16(field(from, bits, j), offset);
        }
        from += bits;
    }
}

/// Sizes ///

static uint64_t groups_of(uint64_t count)
{
    return (count + GROUP - 1) / GROUP;
}

/* Blocks that two channels take. */
static uint64_t blocks_of(uint64_t groups)
{
    return (2 * groups + BLOCK - 1) / BLOCK;
}

/* Words of two channels. */
static uint64_t row_words(uint64_t groups, uint32_t bits)
{
    return bits == 8 ? 2 * groups : blocks_of(groups) * bits;
}

static uint64_t weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    return (channels + 1) / 2 * row_words(groups_of(count), bits) * sizeof(uint32_t);
}

static uint64_t table_bytes(uint64_t channels)
{
    return (channels + 1) / 2 * EQ_STAGE_WORDS * sizeof(int32_t);
}

/* Scratch beside the strips: unpacked weights, and the values of a window that are no whole words. */
static uint64_t row_bytes(uint64_t groups, uint32_t bits)
{
    return bits == 8 ? 0 : blocks_of(groups) * BLOCK * sizeof(uint32_t);
}

static uint64_t patch_bytes(uint64_t groups, uint32_t channels)
{
    return channels % GROUP == 0 ? 0 : (GROUP * groups + 7) / 8 * 8;
}

static uint64_t strip_bytes(uint64_t groups, uint64_t pixels)
{
    return 2 * sizeof(uint32_t) * groups * (pixels < PIXELS ? pixels : PIXELS);
}

static uint64_t scratch_bytes(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count)
{
    const uint64_t groups = groups_of(count);
    const uint64_t pixels = (uint64_t)out->shape[0] * out->shape[1];
    return row_bytes(groups, op->weight_bits) + patch_bytes(groups, in->shape[2]) +
           strip_bytes(groups, pixels);
}

/// What eq_init checks ///

/* Whether the second half of a stage says what the six instructions are exact for. */
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
static int sums_fit(const eq_call_t *call, const uint32_t *row, uint32_t channel, int32_t first,
                    uint32_t groups)
{
    const uint32_t bits = call->op->weight_bits;
    const int32_t greatest = (1 << (eq_width(call->in[0]->bits) - 1u)) - 1;
    int64_t low = 0, high = 0, even = 0;
    for (uint32_t i = 0; i < groups; i++) {
        const uint32_t j = 2 * i + channel;
        uint32_t word =
            bits == 8 ? row[j]
                      : eq_ssub16(field(row + j / BLOCK * bits, bits, j % BLOCK), offset_of(bits));
        for (uint32_t half = 0; half < 2; half++) {
            const int32_t h = (int16_t)word;
            const int32_t w[2] = {(int8_t)word, (h - (int8_t)word) / 256};
            even += w[0];
            for (uint32_t k = 0; k < 2; k++) {
                low += w[k] * (w[k] < 0 ? greatest : -greatest - 1);
                high += w[k] * (w[k] < 0 ? -greatest - 1 : greatest);
            }
            word >>= 16;
        }
    }
    const int32_t start = (int32_t)((uint32_t)first + (uint32_t)(127 * even));
    const int64_t most = (INT64_C(1) << 23) - 1;
    return start % 256 == 0 && low + start / 256 >= -most && high + start / 256 <= most;
}

static int fits(const eq_call_t *call, uint32_t count)
{
    const uint32_t groups = (uint32_t)groups_of(count);
    const uint32_t words = (uint32_t)row_words(groups, call->op->weight_bits);
    const uint32_t *row = (const void *)call->weights;
    const int32_t *stage = call->bias;
    for (uint32_t pair = 0; pair < (call->out->shape[2] + 1) / 2; pair++) {
        const int32_t none = (stage[EQ_STAGE_SHIFT] & 0xFF) == 0 ||
                             (stage[EQ_STAGE_SHIFT + EQ_STAGE_STEP] & 0xFF) == 0;
        for (uint32_t c = 0; c < 2; c++) {
            const int32_t any = c == 0 && none ? EQ_STAGE_ANY : 0;
            if (!stage_fits(stage + c * EQ_STAGE_STEP, call->out->zero_point, any) ||
                !sums_fit(call, row, c, stage[EQ_STAGE_SUM + c], groups)) {
                return 0;
            }
        }
        row += words;
        stage += EQ_STAGE_WORDS;
    }
    return 1;
}

const eq_layout_rules_t eq_pairs_rules = {EQ_LAYOUT_PAIRS, weight_bytes, table_bytes, scratch_bytes,
                                          fits};

/// Gathering ///

/* What is the same for every pixel, and which pixel is next. */
typedef struct {
    const eq_call_t *call;
    uint32_t groups;
    uint32_t run; /* values of a kernel row */
    int8_t *patch;
    uint32_t y;
    uint32_t x;
} walk_t;

/* Where the window of a pixel begins. */
typedef struct {
    int32_t y;
    int32_t x;
} corner_t;

/* Where the next words of a pixel go. */
typedef struct {
    uint32_t *to;
    uint32_t low; /* words from high to low */
    uint32_t step;
} lane_t;

static corner_t next_corner(walk_t *walk)
{
    const eq_operator_t *op = walk->call->op;
    const corner_t corner = {(int32_t)walk->y * op->stride_height - op->pad_top,
                             (int32_t)walk->x * op->stride_width - op->pad_left};
    walk->x++;
    if (walk->x == walk->call->out->shape[1]) {
        walk->x = 0;
        walk->y++;
    }
    return corner;
}

/* Whether every tap of a window lies inside the input, and its rows are runs. */
static int clear(const walk_t *walk, corner_t corner)
{
    const eq_operator_t *op = walk->call->op;
    const uint32_t *shape = walk->call->in[0]->shape;
    const int32_t last = corner.y + (op->kernel_height - 1) * op->dilation_height;
    return corner.y >= 0 && corner.x >= 0 && last < (int32_t)shape[0] &&
           corner.x + op->kernel_width <= (int32_t)shape[1] && op->dilation_width == 1;
}

static const int8_t *values_at(const walk_t *walk, int32_t y, int32_t x)
{
    const uint32_t *shape = walk->call->in[0]->shape;
    return walk->call->input[0] + (y * (int32_t)shape[1] + x) * (int32_t)shape[2];
}

static void put_word(lane_t *lane, uint32_t values)
{
    lane->to[0] = high_word(values);
    lane->to[lane->low] = low_word(values);
    lane->to += lane->step;
}

/* Values, a whole number of groups; or as many zero points, where there is no input. */
static void put_groups(const walk_t *walk, lane_t *lane, const int8_t *values, uint32_t count)
{
    const uint32_t nothing = (uint32_t)(uint8_t)walk->call->in[0]->zero_point * 0x01010101u;
    for (uint32_t i = 0; i < count; i += GROUP) {
        put_word(lane, values != NULL ? eq_load_quad(values + i) : nothing);
    }
}

static int8_t *put_bytes(const walk_t *walk, int8_t *to, const int8_t *values, uint32_t count)
{
    const int8_t nothing = (int8_t)walk->call->in[0]->zero_point;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = values != NULL ? values[i] : nothing;
    }
    return to + count;
}

/* Any window: piece by piece, through the patch where pixels are no whole groups. */
static void gather_one(const walk_t *walk, corner_t corner, lane_t lane)
{
    const eq_operator_t *op = walk->call->op;
    const uint32_t *shape = walk->call->in[0]->shape;
    const int whole = shape[2] % GROUP == 0;
    const eq_span_t rows =
        eq_clip(corner.y, op->kernel_height, op->dilation_height, (int32_t)shape[0]);
    const eq_span_t columns =
        eq_clip(corner.x, op->kernel_width, op->dilation_width, (int32_t)shape[1]);
    const int32_t taps = op->dilation_width == 1 ? columns.last - columns.first : 1;
    int8_t *to = walk->patch;
    for (int32_t ky = 0; ky < op->kernel_height; ky++) {
        const int inside = ky >= rows.first && ky < rows.last;
        for (int32_t kx = 0; kx < op->kernel_width;) {
            const int8_t *values = NULL;
            int32_t next = op->kernel_width;
            if (inside && kx < columns.last && columns.first < columns.last) {
                next = columns.first;
                if (kx >= columns.first) {
                    values = values_at(walk, corner.y + ky * op->dilation_height,
                                       corner.x + kx * op->dilation_width);
                    next = kx + taps;
                }
            }
            const uint32_t count = (uint32_t)(next - kx) * shape[2];
            if (whole) {
                put_groups(walk, &lane, values, count);
            } else {
                to = put_bytes(walk, to, values, count);
            }
            kx = next;
        }
    }
    if (!whole) {
        (void)put_bytes(walk, to, NULL, (uint32_t)(walk->patch + GROUP * walk->groups - to));
        put_groups(walk, &lane, walk->patch, GROUP * walk->groups);
    }
}

static void gather_four(walk_t *walk, uint32_t *strip)
{
    corner_t corners[PIXELS];
    const int8_t *values[PIXELS];
    int runs = walk->run % GROUP == 0;
    for (uint32_t i = 0; i < PIXELS; i++) {
        corners[i] = next_corner(walk);
        runs = runs && clear(walk, corners[i]);
    }
    if (!runs) {
        for (uint32_t i = 0; i < PIXELS; i++) {
            const lane_t lane = {strip + i, PIXELS, 2 * PIXELS};
            gather_one(walk, corners[i], lane);
        }
        return;
    }
    for (uint32_t i = 0; i < PIXELS; i++) {
        values[i] = values_at(walk, corners[i].y, corners[i].x);
    }
    const uint32_t *shape = walk->call->in[0]->shape;
    const uint32_t pitch = walk->call->op->dilation_height * shape[1] * shape[2];
    for (uint32_t ky = 0; ky < walk->call->op->kernel_height; ky++) {
        const uint32_t at = ky * pitch;
        eq_pairs_widen_four(strip, values[0] + at, values[1] + at, values[2] + at, values[3] + at,
                            walk->run / GROUP);
        strip += walk->run / GROUP * 2 * PIXELS;
    }
}

/// Multiplying ///

/* `pairs` pairs of channels of `pixels` pixels. */
static void multiply(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                     const uint32_t *weights, const int32_t *stages, int8_t *output,
                     uint32_t stride, uint32_t pairs)
{
    if (pixels == PIXELS) {
        eq_pairs_four(strip, weights, stages, output, stride, pairs, walk->groups);
        return;
    }
    for (uint32_t i = 0; i < pixels; i++) {
        eq_pairs_one(strip + 2 * walk->groups * i, weights, stages, output + i * stride, pairs,
                     walk->groups);
    }
}

/* As `multiply`, from pair `first` on; the second of the last two channels may not be there. */
static void multiply_channels(const walk_t *walk, const uint32_t *strip, uint32_t pixels,
                              const uint32_t *weights, uint32_t first, uint32_t pairs,
                              int8_t *output)
{
    const uint32_t channels = walk->call->out->shape[2];
    const int32_t *stages = walk->call->bias + (size_t)EQ_STAGE_WORDS * first;
    const uint32_t whole = first + pairs > channels / 2 ? channels / 2 - first : pairs;
    if (whole != 0) {
        multiply(walk, strip, pixels, weights, stages, output + 2 * first, channels, whole);
    }
    if (whole != pairs) {
        int8_t last[2 * PIXELS];
        multiply(walk, strip, pixels, weights + 2 * walk->groups * whole,
                 stages + (size_t)EQ_STAGE_WORDS * whole, last, 2, 1);
        for (uint32_t i = 0; i < pixels; i++) {
            output[i * channels + channels - 1] = last[2 * i];
        }
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

void eq_pairs_run(const eq_call_t *call, uint32_t count)
{
    const uint32_t bits = call->op->weight_bits;
    const uint32_t channels = call->out->shape[2];
    const uint32_t pixels = call->out->shape[0] * call->out->shape[1];
    walk_t walk = {.call = call,
                   .groups = (uint32_t)groups_of(count),
                   .run = call->op->kernel_width * call->in[0]->shape[2]};
    const uint32_t blocks = (uint32_t)blocks_of(walk.groups);
    const uint32_t strip_words = 2 * PIXELS * walk.groups;
    uint32_t *row = call->scratch;
    walk.patch = (int8_t *)call->scratch + row_bytes(walk.groups, bits);
    uint32_t *strips = (void *)(walk.patch + patch_bytes(walk.groups, call->in[0]->shape[2]));
    const uint32_t left =
        call->op->scratch_bytes - (uint32_t)((uint8_t *)strips - (uint8_t *)call->scratch);
    const uint32_t held = bits == 8 ? PIXELS : left / (strip_words * 4u) * PIXELS;
    const uint32_t batch = held == 0 ? PIXELS : held; /* pixels that are gathered at a time */
    for (uint32_t first = 0; first < pixels; first += batch) {
        const uint32_t there = pixels - first < batch ? pixels - first : batch;
        for (uint32_t i = 0; i < there; i++) {
            uint32_t *strip = strips + i / PIXELS * strip_words;
            if (i % PIXELS == 0 && there - i >= PIXELS) {
                gather_four(&walk, strip);
                i += PIXELS - 1;
            } else {
                const lane_t lane = {strip + i % PIXELS * 2 * walk.groups, 1, 2};
                gather_one(&walk, next_corner(&walk), lane);
            }
        }
        const uint32_t turns = bits == 8 ? 1 : (channels + 1) / 2;
        for (uint32_t turn = 0; turn < turns; turn++) {
            const uint32_t *weights = (const void *)call->weights;
            if (bits != 8) {
                unpack_row(row, weights + (size_t)turn * blocks * bits, bits, blocks);
                weights = row;
            }
            for (uint32_t i = 0; i < there; i += PIXELS) {
                multiply_channels(&walk, strips + i / PIXELS * strip_words,
                                  there - i < PIXELS ? there - i : PIXELS, weights, turn,
                                  bits == 8 ? (channels + 1) / 2 : 1,
                                  call->output + (size_t)(first + i) * channels);
            }
        }
    }
    clamp(call);
}
