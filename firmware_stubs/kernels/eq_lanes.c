#include "eq_lanes.h"

#include "eq_dsp.h"
#include "eq_rows.h"

enum {
    UNIT = 8, /* steps */
    FOUR = 4, /* pixels of a strip of the layout "lanes" */
    SIX = 6   /* of "sixes" */
};

/* What the loops are told; eq_lanes_dsp.S knows the offsets. */
typedef struct {
    uint32_t stride; /* bytes from a pixel of the output to the next */
    uint32_t pairs;  /* of channels */
    uint32_t first;  /* units of the first segment */
    uint32_t units;  /* of every other, a multiple of 4 */
    uint32_t more;   /* how many others */
    uint32_t bits;   /* 4 or 2: of a field of weights */
    uint32_t width;  /* of an output value: as packed, or 8 */
    uint32_t
        general; /* 0 where the usual code does: no other segments or shifts, and six pixels packed */
} eq_lanes_t;

/* What there is to do. */
typedef struct {
    const eq_call_t *call;
    eq_lanes_t shape;
    uint32_t pixels; /* of a strip: FOUR, SIX, or 1 */
    uint32_t count;  /* weights of a channel */
    uint32_t width;  /* bits of an input value: 4 or 2 */
    uint32_t offset; /* of weights, doubled */
    uint32_t *strip;
    uint8_t *patch; /* where pixels of the input are no whole words */
    int8_t *values; /* where pixels of the output are no whole bytes, or too few */
} work_t;

/// Weights ///

static inline uint32_t rotate(uint32_t word, uint32_t right)
{
    return word >> right | word << (32 - right);
}

/* How many bits a field has: those of 3 take 4. */
static inline uint32_t field_bits(uint32_t bits)
{
    return bits == 2 ? 2 : 4;
}

/* Operand k of two channels. */
static uint32_t operand(const uint32_t *row, uint32_t bits, uint32_t pixels, uint32_t k)
{
    if (pixels == SIX) {
        return rotate(row[k / 8], 4 * (k % 8) + 2) & 0xC0000003u;
    }
    return bits == 4 ? rotate(row[k / 4], 8 * (k % 4) + 4) & 0xF000000Fu
                     : rotate(row[k / 8], 8 * (k % 8 / 2) + 4 + 2 * (k % 2)) & 0x30000003u;
}

static inline uint64_t units_of(uint64_t count)
{
    return (count + UNIT - 1) / UNIT;
}

/* Words of the weights of two channels. */
static inline uint64_t row_words(uint64_t units, uint32_t bits)
{
    return units * field_bits(bits) / 2;
}

/// The loops, in C; in eq_lanes_dsp.S where the core has the instructions ///

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

void eq_lanes_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                   int8_t *output, const eq_lanes_t *shape);
void eq_lanes_six(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                  int8_t *output, const eq_lanes_t *shape);
void eq_lanes_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                  int8_t *output, const eq_lanes_t *shape);

#else

/* From a doubled sum to a value of 8 bits. */
static int32_t requantize(int32_t twice, const int32_t *stage)
{
    const int32_t shift = stage[EQ_LANES_SHIFT];
    if ((shift & EQ_LANES_EXACT) != 0) {
        const int32_t scaled = twice * (1 << (shift >> 8 & 0xFF));
        return eq_smmulr(scaled, stage[EQ_LANES_MULTIPLIER]) + stage[EQ_LANES_ADDEND];
    }
    const int32_t value = eq_smmulr(twice, stage[EQ_LANES_MULTIPLIER]);
    return (value - (value < 0) + stage[EQ_LANES_ADDEND]) >> (shift & 0xFF);
}

/* A value at its place: the low bits of a byte are written first. */
static void store(int8_t *pixel, uint32_t width, uint32_t channel, int32_t value)
{
    const int32_t high = (1 << (width - 1)) - 1;
    const uint32_t at = channel * width;
    const uint32_t clamped = (uint32_t)eq_clamp(value, -high - 1, high) & ((1u << width) - 1u);
    const uint32_t before = at % 8 == 0 ? 0 : (uint8_t)pixel[at / 8];
    pixel[at / 8] = (int8_t)(before | clamped << at % 8);
}

/* Both channels of a pixel, whose lane is `lane` and lanes `apart`, by `words` words a step. */
static void one_pixel(const uint32_t *strip, uint64_t start, uint32_t words, uint32_t lane,
                      uint32_t apart, uint32_t lane_bits, uint32_t pixels, const uint32_t *row,
                      const eq_lanes_t *shape, uint32_t sums[2])
{
    uint32_t k = 0;
    sums[0] = sums[1] = 0;
    for (uint32_t segment = 0; segment <= shape->more; segment++) {
        uint64_t lanes = start;
        const uint32_t units = segment == 0 ? shape->first : shape->units;
        for (const uint32_t end = k + UNIT * units; k < end; k++) {
            lanes += (uint64_t)operand(row, shape->bits, pixels, k) * strip[words * k];
        }
        sums[0] += (uint32_t)(lanes >> lane) & ((1u << lane_bits) - 1u);
        sums[1] += (uint32_t)(lanes >> (lane + apart)) & ((1u << lane_bits) - 1u);
    }
}

/* Strips of `pixels` pixels, `pixels` / 2 of them in an operand, or one alone. */
static void all_pixels(const uint32_t *strip, uint32_t pixels, uint32_t lane_bits, uint32_t apart,
                       const uint32_t *weights, const int32_t *stages, int8_t *output,
                       const eq_lanes_t *shape)
{
    const uint32_t words = pixels == 1 ? 1 : 2, share = pixels / words;
    const uint32_t units = shape->first + shape->more * shape->units;
    const uint32_t *starts = strip;
    const uint32_t *offsets = strip + (size_t)UNIT * words * units;
    strip += pixels == SIX ? 2 * words : 0;
    for (uint32_t pair = 0; pair < shape->pairs; pair++) {
        for (uint32_t p = 0; p < pixels; p++) {
            uint32_t sums[2];
            const uint32_t *half = starts + 2 * (p / share);
            const uint64_t start = pixels == SIX ? half[0] | (uint64_t)half[1] << 32 : 0;
            const uint32_t offset = pixels == SIX ? 0 : offsets[p];
            one_pixel(strip + p / share, start, words, p % share * lane_bits, apart, lane_bits,
                      pixels, weights, shape, sums);
            for (uint32_t c = 0; c < 2; c++) {
                const int32_t *stage = stages + EQ_LANES_WORDS * c;
                const int32_t twice = (int32_t)(2 * sums[c] - offset) + stage[EQ_LANES_SUM];
                store(output + p * shape->stride, shape->width, 2 * pair + c,
                      requantize(twice, stage));
            }
        }
        weights += row_words(units, shape->bits);
        stages += 2 * EQ_LANES_WORDS;
    }
}

static void eq_lanes_four(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                          int8_t *output, const eq_lanes_t *shape)
{
    all_pixels(strip, FOUR, 14, 28, weights, stages, output, shape);
}

static void eq_lanes_six(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                         int8_t *output, const eq_lanes_t *shape)
{
    all_pixels(strip, SIX, 10, 30, weights, stages, output, shape);
}

/* Its values are bytes. */
static void eq_lanes_one(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                         int8_t *output, const eq_lanes_t *shape)
{
    all_pixels(strip, 1, 28, 28, weights, stages, output, shape);
}

#endif

/// Sizes ///

/* Bytes of scratch, each a multiple of 8. */
typedef struct {
    uint64_t strip;
    uint64_t patch;
    uint64_t values;
} sizes_t;

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + 7) / 8 * 8;
}

static uint64_t pixels_of(const eq_tensor_record_t *out)
{
    return (uint64_t)out->shape[0] * out->shape[1];
}

/* Whether pixels of so many values are read in whole words where they lie. */
static int whole_words(const eq_tensor_record_t *in, uint64_t count)
{
    return count * eq_width(in->bits) % 32 == 0;
}

/* Whether the loops write pixels where they belong. */
static int whole_bytes(const eq_tensor_record_t *out, uint32_t pixels)
{
    const uint32_t width = eq_width(out->bits);
    return pixels != 1 && (width == 8 || width == (pixels == SIX ? 2u : 4u)) &&
           out->shape[2] % (width == 2 ? 4u : 2u) == 0;
}

/* Values come in words of 32 bits, which may hold two units. */
static uint64_t padded_count(uint64_t count)
{
    return (count + 15) / 16 * 16;
}

static sizes_t sizes_of(const eq_tensor_record_t *in, const eq_tensor_record_t *out, uint64_t count,
                        uint32_t pixels)
{
    const uint64_t steps = padded_count(count), words = pixels == 1 ? 1 : 2;
    const int direct = whole_bytes(out, pixels) && pixels_of(out) % pixels == 0;
    const sizes_t sizes = {
        aligned((steps * words + pixels) * sizeof(uint32_t)),
        whole_words(in, count) ? 0 : aligned(pixels * steps * eq_width(in->bits) / 8),
        direct ? 0 : aligned(pixels * (((uint64_t)out->shape[2] + 1) / 2 * 2))};
    return sizes;
}

static uint64_t scratch_of(const eq_tensor_record_t *in, const eq_tensor_record_t *out,
                           uint64_t count, uint32_t pixels)
{
    const sizes_t sizes = sizes_of(in, out, count, pixels);
    return sizes.strip + sizes.patch + sizes.values;
}

/* One pixel alone is a strip of its own. */
static uint32_t strip_pixels(const eq_tensor_record_t *out)
{
    return pixels_of(out) == 1 ? 1 : FOUR;
}

static uint64_t lanes_scratch(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count)
{
    (void)op;
    return scratch_of(in, out, count, strip_pixels(out));
}

static uint64_t sixes_scratch(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count)
{
    (void)op;
    return scratch_of(in, out, count, SIX);
}

static uint64_t weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    return (channels + 1) / 2 * row_words(units_of(count), bits) * sizeof(uint32_t);
}

static uint64_t table_bytes(uint64_t channels)
{
    return ((channels + 1) / 2 * 2 * EQ_LANES_WORDS + EQ_LANES_HEADER) * sizeof(int32_t);
}

/// What eq_init checks ///

/* Whether windows are points inside the input. */
static int is_point(const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const uint32_t *in = call->in[0]->shape, *out = call->out->shape;
    return op->kernel_height == 1 && op->kernel_width == 1 && (op->pad_top | op->pad_left) == 0 &&
           (uint64_t)(out[0] - 1) * op->stride_height < in[0] &&
           (uint64_t)(out[1] - 1) * op->stride_width < in[1];
}

static int stage_fits(const int32_t *stage, int32_t zero_point)
{
    const uint32_t shifts = (uint32_t)stage[EQ_LANES_SHIFT];
    const uint32_t right = shifts & 0xFFu, left = shifts >> 8 & 0xFFu;
    const int32_t multiplier = stage[EQ_LANES_MULTIPLIER];
    if (shifts >> 16 != (right == 0 ? 1u : 0u) || right > EQ_LANES_MOST_RIGHT ||
        left > (right == 0 ? EQ_LANES_MOST_LEFT : 0u)) {
        return 0;
    }
    const int32_t half = right != 0 ? 1 << (right - 1u) : 0;
    return stage[EQ_LANES_ADDEND] == half + zero_point * (int32_t)(1u << right) &&
           (multiplier == 0 || multiplier >= 1 << 30);
}

/* Whether lanes of one or two channels hold each segment, and all of it what follows. */
static int sums_fit(const eq_call_t *call, const uint32_t *row, const int32_t *stages,
                    uint32_t channels, const eq_lanes_t *shape, uint32_t count, uint32_t pixels)
{
    const uint32_t most = (1u << eq_width(call->in[0]->bits)) - 1u;
    const uint32_t lane_bits = pixels == SIX ? 10 : pixels == FOUR ? 14 : 28;
    const int32_t offset = 1 << (call->op->weight_bits - 1);
    const int64_t first = call->bias[EQ_LANES_START];
    for (uint32_t c = 0; c < channels; c++) {
        const int32_t *stage = stages + EQ_LANES_WORDS * c;
        int64_t low = 0, high = 0;
        uint32_t k = 0;
        for (uint32_t segment = 0; segment <= shape->more; segment++) {
            uint64_t lane = 0;
            const uint32_t units = segment == 0 ? shape->first : shape->units;
            for (const uint32_t end = k + UNIT * units; k < end; k++) {
                const uint32_t both = operand(row, shape->bits, pixels, k);
                const uint32_t field = c == 0 ? both & 0xFu : both >> (pixels == SIX ? 30 : 28);
                const int32_t weight = (int32_t)field - offset;
                lane += (uint64_t)field * most;
                high += k < count && weight > 0 ? weight * (int64_t)most : 0;
                low += k < count && weight < 0 ? weight * (int64_t)most : 0;
            }
            if (pixels != SIX && lane >> lane_bits != 0) {
                return 0;
            }
        }
        if (pixels == SIX && (first + low < 0 || (first + high) >> lane_bits != 0)) {
            return 0;
        }
        const int64_t start = stage[EQ_LANES_SUM] + 2 * first;
        const int64_t limit = INT64_C(1) << (31u - ((uint32_t)stage[EQ_LANES_SHIFT] >> 8 & 0xFFu));
        if (start % 2 != 0 || start + 2 * high >= limit || start + 2 * low <= -limit) {
            return 0;
        }
    }
    return 1;
}

/* Segments: the first has what is not a multiple of the others. */
static void set_segments(eq_lanes_t *shape, uint32_t units, uint32_t each)
{
    shape->more = (units - 1) / each;
    shape->first = units - shape->more * each;
    shape->units = each;
}

static int fits(const eq_call_t *call, uint32_t count, uint32_t pixels)
{
    const uint32_t bits = call->op->weight_bits, width = eq_width(call->in[0]->bits);
    const uint32_t units = (uint32_t)units_of(count), each = (uint32_t)call->bias[EQ_LANES_UNITS];
    const int32_t start = call->bias[EQ_LANES_START];
    const uint32_t values = pixels == SIX ? 10 : 14; /* sums of which lie in lanes like these */
    const uint32_t *row = (const void *)call->weights;
    const int32_t *stages = call->bias + EQ_LANES_HEADER;
    if (!eq_is_packed(call->in[0]) || bits > 4 || (pixels == SIX && (width != 2 || bits != 2)) ||
        (call->kernel->family == EQ_FAMILY_CONV && !is_point(call)) ||
        (uint64_t)count * ((1u << width) - 1u) >> (pixels == 1 ? 24 : values) != 0 || each == 0 ||
        (each < units && (each % 4 != 0 || pixels != FOUR)) ||
        (pixels == SIX ? (uint32_t)start > 1023u : start != 0)) {
        return 0;
    }
    eq_lanes_t shape = {.bits = field_bits(bits)};
    const uint32_t channels = call->out->shape[2];
    int32_t any = 0;
    set_segments(&shape, units, each);
    for (uint32_t pair = 0; pair < (channels + 1) / 2; pair++) {
        const uint32_t two = channels - 2 * pair < 2 ? 1 : 2;
        any |= (stages[EQ_LANES_SHIFT] | stages[EQ_LANES_WORDS + EQ_LANES_SHIFT]) & EQ_LANES_EXACT;
        if (!stage_fits(stages, call->out->zero_point) ||
            !stage_fits(stages + EQ_LANES_WORDS, call->out->zero_point) ||
            !sums_fit(call, row, stages, two, &shape, count, pixels)) {
            return 0;
        }
        row += row_words(units, bits);
        stages += 2 * EQ_LANES_WORDS;
    }
    return call->bias[EQ_LANES_ANY] == (any != 0 ? 1 : 0);
}

static int lanes_fit(const eq_call_t *call, uint32_t count)
{
    return fits(call, count, strip_pixels(call->out));
}

static int sixes_fit(const eq_call_t *call, uint32_t count)
{
    return fits(call, count, SIX);
}

const eq_layout_rules_t eq_lanes_rules = {EQ_LAYOUT_LANES, 1,         weight_bytes, table_bytes,
                                          lanes_scratch,   lanes_fit, NULL};
const eq_layout_rules_t eq_sixes_rules = {EQ_LAYOUT_SIXES, 1,         weight_bytes, table_bytes,
                                          sixes_scratch,   sixes_fit, NULL};

/// Values of pixels ///

/* Pixel `pixel` of the input as whole words, filled up with the least value. */
static const int8_t *copy_pixel(const work_t *work, uint32_t pixel, uint8_t *to)
{
    const uint32_t bits = work->count * work->width, total = (bits + 7) / 8;
    const uint32_t padded = (uint32_t)padded_count(work->count) * work->width / 8;
    const uint32_t from = pixel * bits, shift = from % 8;
    const uint32_t nothing = work->width == 4 ? 0x88 : 0xAA;
    const uint8_t *byte = (const uint8_t *)work->call->input[0] + from / 8;
    const uint32_t last = (shift + bits - 1) / 8; /* of the bytes that hold the pixel */
    for (uint32_t i = 0; i < total; i++) {
        const uint32_t high = i < last ? byte[i + 1] : 0u;
        to[i] = (uint8_t)((byte[i] | high << 8) >> shift);
    }
    if (bits % 8 != 0) {
        const uint32_t mask = (1u << bits % 8) - 1u;
        to[total - 1] = (uint8_t)((to[total - 1] & mask) | (nothing & ~mask));
    }
    for (uint32_t i = total; i < padded; i++) {
        to[i] = (uint8_t)nothing;
    }
    return (const int8_t *)to;
}

/* The values of pixel i of the output, behind it the last pixel again; slot `slot` of the patch. */
static const int8_t *values_of(const work_t *work, uint32_t i, uint32_t slot)
{
    const eq_call_t *call = work->call;
    const uint32_t *in = call->in[0]->shape, *out = call->out->shape;
    uint32_t pixel = i;
    if (work->pixels == 1) {
        pixel = 0; /* or the whole input of a fully connected layer */
    } else {
        const uint32_t last = out[0] * out[1] - 1;
        pixel = pixel < last ? pixel : last;
        if ((call->op->stride_height | call->op->stride_width) != 1 || out[1] != in[1]) {
            const uint32_t y = pixel / out[1], x = pixel % out[1];
            pixel = y * call->op->stride_height * in[1] + x * call->op->stride_width;
        }
    }
    if (whole_words(call->in[0], work->count)) {
        return call->input[0] + pixel * (work->count * work->width / 8);
    }
    return copy_pixel(work, pixel,
                      work->patch + slot * (uint32_t)padded_count(work->count) * work->width / 8);
}

/// Packing ///

/* One step of some pixels, which stand in `packed` beside others; gives their sums, by lanes. */
static inline uint32_t step(uint32_t *to, uint32_t packed, uint32_t mask, uint32_t sums)
{
    *to = packed & mask;
    return sums + (packed & mask);
}

/* Two pixels 14 bits apart, words of 4-bit values: the steps' words are two apart. */
static uint32_t pack_two_of_4(uint32_t *to, const int8_t *a, const int8_t *b, uint32_t count)
{
    const uint32_t mask = 0x0003C00Fu;
    uint32_t sums = 0;
    for (uint32_t i = 0; i < count; i += 8) {
        const uint32_t x = eq_load_quad(a) ^ 0x88888888u, y = eq_load_quad(b) ^ 0x88888888u;
        uint32_t both = (x & 0xFFFu) | (y & 0xFFFu) << 14;
        sums = step(to, both, mask, sums);
        sums = step(to + 2, both >> 4, mask, sums);
        sums = step(to + 4, both >> 8, mask, sums);
        both = (x >> 12 & 0xFFFu) | (y >> 12 & 0xFFFu) << 14;
        sums = step(to + 6, both, mask, sums);
        sums = step(to + 8, both >> 4, mask, sums);
        sums = step(to + 10, both >> 8, mask, sums);
        both = x >> 24 | y >> 24 << 14;
        sums = step(to + 12, both, mask, sums);
        sums = step(to + 14, both >> 4, mask, sums);
        to += 16;
        a += 4;
        b += 4;
    }
    return sums;
}

/* Two pixels 14 bits apart, words of 2-bit values. */
static uint32_t pack_two_of_2(uint32_t *to, const int8_t *a, const int8_t *b, uint32_t count)
{
    const uint32_t mask = 0x0000C003u;
    uint32_t sums = 0;
    for (uint32_t i = 0; i < count; i += 16) {
        const uint32_t x = eq_load_quad(a) ^ 0xAAAAAAAAu, y = eq_load_quad(b) ^ 0xAAAAAAAAu;
        for (uint32_t half = 0; half < 32; half += 8) {
            const uint32_t both = (x >> half & 0xFFu) | (y >> half & 0xFFu) << 14;
            sums = step(to, both, mask, sums);
            sums = step(to + 2, both >> 2, mask, sums);
            sums = step(to + 4, both >> 4, mask, sums);
            sums = step(to + 6, both >> 6, mask, sums);
            to += 8;
        }
        a += 4;
        b += 4;
    }
    return sums;
}

/* Three pixels 10 bits apart, words of 2-bit values. */
static uint32_t pack_three(uint32_t *to, const int8_t *a, const int8_t *b, const int8_t *c,
                           uint32_t count)
{
    const uint32_t mask = 0x00300C03u;
    uint32_t sums = 0;
    for (uint32_t i = 0; i < count; i += 16) {
        const uint32_t x = eq_load_quad(a) ^ 0xAAAAAAAAu, y = eq_load_quad(b) ^ 0xAAAAAAAAu,
                       z = eq_load_quad(c) ^ 0xAAAAAAAAu;
        for (uint32_t at = 0; at < 30; at += 10) {
            const uint32_t all =
                (x >> at & 0x3FFu) | (y >> at & 0x3FFu) << 10 | (z >> at & 0x3FFu) << 20;
            sums = step(to, all, mask, sums);
            sums = step(to + 2, all >> 2, mask, sums);
            sums = step(to + 4, all >> 4, mask, sums);
            sums = step(to + 6, all >> 6, mask, sums);
            sums = step(to + 8, all >> 8, mask, sums);
            to += 10;
        }
        sums = step(to, x >> 30 | y >> 30 << 10 | z >> 30 << 20, mask, sums);
        to += 2;
        a += 4;
        b += 4;
        c += 4;
    }
    return sums;
}

/* One pixel: its values as words. */
static uint32_t pack_one(uint32_t *to, const int8_t *a, uint32_t count, uint32_t width)
{
    const uint32_t mask = (1u << width) - 1u, nothing = width == 4 ? 0x88888888u : 0xAAAAAAAAu;
    uint32_t sums = 0;
    for (uint32_t i = 0; i < count; i += 32 / width) {
        uint32_t x = eq_load_quad(a) ^ nothing;
        for (uint32_t at = 0; at < 32; at += 4 * width) {
            sums = step(to, x, mask, sums);
            sums = step(to + 1, x >> width, mask, sums);
            sums = step(to + 2, x >> 2 * width, mask, sums);
            sums = step(to + 3, x >> 3 * width, mask, sums);
            x = width == 4 ? x >> 16 : x >> 8;
            to += 4;
        }
        a += 4;
    }
    return sums;
}

/* What lanes of three pixels of both channels begin with, twice. */
static void start_lanes(uint32_t *to, const uint32_t *sums, int32_t start)
{
    for (uint32_t half = 0; half < 2; half++) {
        uint64_t lanes = 0;
        for (uint32_t i = 3; i-- > 0;) {
            const int32_t sum = (int32_t)(sums[half] >> 10 * i & 1023u);
            lanes = (lanes << 10) + (uint64_t)(int64_t)(start - 2 * sum);
        }
        lanes += lanes << 30;
        to[2 * half] = (uint32_t)lanes;
        to[2 * half + 1] = (uint32_t)(lanes >> 32);
    }
}

/* Pixels from `first` on, as operands; behind the last step the offsets of their sums, or, of six, before the first. */
static void pack_strip(const work_t *work, uint32_t first)
{
    const uint32_t per_word = 32 / work->width;
    const uint32_t count = (work->count + per_word - 1) / per_word * per_word;
    const uint32_t units = (uint32_t)units_of(work->count);
    const uint32_t share = work->pixels == SIX ? 3 : 2, lane = work->pixels == SIX ? 10 : 14;
    uint32_t *offsets = work->strip + (size_t)UNIT * units * (work->pixels == 1 ? 1 : 2);
    uint32_t sums[2];
    if (work->pixels == 1) {
        sums[0] = pack_one(work->strip, values_of(work, 0, 0), count, work->width);
        *offsets = work->offset * sums[0];
        return;
    }
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t slot = half * share;
        const int8_t *a = values_of(work, first + slot, slot);
        const int8_t *b = values_of(work, first + slot + 1, slot + 1);
        uint32_t *to = work->strip + half + (work->pixels == SIX ? 4 : 0);
        if (work->pixels == SIX) {
            const int8_t *c = values_of(work, first + slot + 2, slot + 2);
            sums[half] = pack_three(to, a, b, c, count);
        } else if (work->width == 4) {
            sums[half] = pack_two_of_4(to, a, b, count);
        } else {
            sums[half] = pack_two_of_2(to, a, b, count);
        }
    }
    if (work->pixels == SIX) {
        start_lanes(work->strip, sums, work->call->bias[EQ_LANES_START]);
        return;
    }
    for (uint32_t i = 0; i < work->pixels; i++) {
        const uint32_t sum = sums[i / share] >> i % share * lane & ((1u << lane) - 1u);
        offsets[i] = work->offset * sum;
    }
}

/// Running ///

typedef void (*loop_t)(const uint32_t *strip, const uint32_t *weights, const int32_t *stages,
                       int8_t *output, const eq_lanes_t *shape);

/* Clamps values of the output, four bytes of them at a time, each beside nothing. */
static void clamp_packed(const eq_call_t *call)
{
    const uint32_t width = eq_width(call->out->bits), bytes = eq_tensor_bytes(call->out);
    const int32_t high = (1 << (width - 1)) - 1;
    int8_t *output = call->output;
    if (call->op->clamp_min == -high - 1 && call->op->clamp_max == high) {
        return;
    }
    const uint32_t up = 8 - width, mask = 0x01010101u * (0xFFu << up & 0xFFu);
    const uint32_t lows = 0x01010101u * (uint8_t)(call->op->clamp_min * (1 << up));
    const uint32_t highs = 0x01010101u * (uint8_t)(call->op->clamp_max * (1 << up));
    for (uint32_t i = 0; i < bytes; i += 4) {
        int8_t four[4] = {0};
        const uint32_t count = bytes - i < 4 ? bytes - i : 4;
        for (uint32_t j = 0; j < count; j++) {
            four[j] = output[i + j];
        }
        uint32_t quad = eq_load_quad(four), clamped = 0;
        for (uint32_t at = 0; at < 8; at += width) {
            const uint32_t values = quad << (up - at) & mask;
            clamped |= eq_min_quad(eq_max_quad(values, lows), highs) >> (up - at);
        }
        eq_store_quad(four, clamped);
        for (uint32_t j = 0; j < count; j++) {
            output[i + j] = four[j];
        }
    }
}

/* Pixels whose values are bytes of scratch go to the output, clamped. */
static void store_pixels(const work_t *work, uint32_t first, uint32_t count)
{
    const eq_call_t *call = work->call;
    const uint32_t channels = call->out->shape[2];
    const uint32_t stride = (channels + 1) / 2 * 2;
    eq_clamp_bytes(work->values, stride * count, call->op->clamp_min, call->op->clamp_max);
    for (uint32_t i = 0; i < count; i++) {
        eq_store_run(call->out, call->output, (first + i) * channels, work->values + i * stride,
                     channels);
    }
}

static void run(const eq_call_t *call, uint32_t count, uint32_t pixels)
{
    static const loop_t loops[] = {eq_lanes_one, eq_lanes_four, eq_lanes_six};
    const loop_t loop = loops[pixels / FOUR + (pixels == SIX)];
    const uint32_t bits = call->op->weight_bits, channels = call->out->shape[2];
    const sizes_t sizes = sizes_of(call->in[0], call->out, count, pixels);
    const int32_t *stages = call->bias + EQ_LANES_HEADER;
    const uint32_t *weights = (const void *)call->weights;
    uint8_t *scratch = call->scratch;
    work_t work = {.call = call,
                   .pixels = pixels,
                   .count = count,
                   .width = eq_width(call->in[0]->bits),
                   .offset = 1u << bits,
                   .strip = call->scratch,
                   .patch = scratch + sizes.strip,
                   .values = (int8_t *)scratch + sizes.strip + sizes.patch};
    set_segments(&work.shape, (uint32_t)units_of(count), (uint32_t)call->bias[EQ_LANES_UNITS]);
    work.shape.bits = field_bits(bits);
    work.shape.pairs = (channels + 1) / 2;
    const uint32_t any = (uint32_t)call->bias[EQ_LANES_ANY];
    const uint32_t total = (uint32_t)pixels_of(call->out);
    const int direct = whole_bytes(call->out, pixels);
    for (uint32_t first = 0; first < total; first += pixels) {
        const uint32_t left = total - first;
        pack_strip(&work, first);
        const int placed = direct && left >= pixels;
        eq_lanes_t *shape = &work.shape;
        shape->width = placed ? eq_width(call->out->bits) : 8;
        shape->stride = placed ? channels * shape->width / 8 : 2 * shape->pairs;
        shape->general = any << 31 | shape->more | (pixels == SIX && shape->width == 8);
        loop(work.strip, weights, stages,
             placed ? call->output + first * shape->stride : work.values, shape);
        if (!placed) {
            store_pixels(&work, first, left < pixels ? left : pixels);
        }
    }
    if (direct) {
        clamp_packed(call);
    }
}

void eq_lanes_run(const eq_call_t *call)
{
    const int connected = call->kernel->family == EQ_FAMILY_FC;
    const uint32_t count = connected ? eq_elements(call->in[0]) : call->in[0]->shape[2];
    run(call, count, strip_pixels(call->out));
}

void eq_sixes_run(const eq_call_t *call)
{
    run(call, call->in[0]->shape[2], SIX);
}
