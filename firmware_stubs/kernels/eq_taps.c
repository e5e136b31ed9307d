/*
 * Output row by output row: three rows of the input lie packed in scratch, group by group of blocks,
 * where those that the next output row needs as well move up; every channel meets them, and the row
 * of bytes that this gives is stored in as many bits as the output has.
 */
#include "eq_taps.h"

#include "eq_dsp.h"
#include "eq_rows.h"

enum { ROWS = 3, GROUP = EQ_TAPS_BLOCKS, BATCH = 4 /* channels whose sums there is room for */ };

#define LANES_14 (UINT64_C(1) << 13 | UINT64_C(1) << 27 | UINT64_C(1) << 41)

/// Operands of weights ///

/* Memory bits of a weight: 4 or 2. */
static uint32_t field_bits(uint32_t bits)
{
    return bits > 2 ? 4 : 2;
}

static uint32_t channels_of_word(uint32_t bits)
{
    return 8 / field_bits(bits);
}

/* Where the field of a tap stands in its word; `i` is the channel in the word. */
static uint32_t position(const eq_taps_t *taps, uint32_t bits, uint32_t i, uint32_t tap)
{
    static const uint8_t far[] = {0, 2, 8, 10}, odd_2[] = {8, 10, 22, 24}, odd_4[] = {8, 22};
    const uint32_t near = i * field_bits(bits);
    if (taps->stride == 2) {
        const uint32_t odd = bits > 2 ? odd_4[i] : odd_2[i];
        return tap == 1 ? odd : tap == 2 ? near : near + taps->width;
    }
    const uint32_t first = taps->width == 12 ? near : bits > 2 ? 8 * i : far[i];
    return (first + taps->width * (2 - tap)) % 32;
}

static uint32_t field(const eq_taps_t *taps, uint32_t word, uint32_t bits, uint32_t i, uint32_t tap)
{
    return word >> position(taps, bits, i, tap) & ((1u << field_bits(bits)) - 1u);
}

/// The loops, in C; in eq_taps_dsp.S where the core has the instructions ///

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

void eq_taps_multiply_14_4(const uint32_t *values, const uint32_t *weights, const uint64_t *first,
                           uint64_t *sums, uint32_t groups, uint32_t words, uint32_t channels);
void eq_taps_multiply_14_2(const uint32_t *values, const uint32_t *weights, const uint64_t *first,
                           uint64_t *sums, uint32_t groups, uint32_t words, uint32_t channels);
void eq_taps_multiply_12_2(const uint32_t *values, const uint32_t *weights, const uint64_t *first,
                           uint64_t *sums, uint32_t groups, uint32_t words, uint32_t channels);
void eq_taps_multiply_halves_4(const uint32_t *values, const uint32_t *weights,
                               const uint64_t *first, uint64_t *sums, uint32_t groups,
                               uint32_t words, uint32_t channels);
void eq_taps_multiply_halves_2(const uint32_t *values, const uint32_t *weights,
                               const uint64_t *first, uint64_t *sums, uint32_t groups,
                               uint32_t words, uint32_t channels);
void eq_taps_finish_14(const uint64_t *sums, const int32_t *stage, int8_t *output, uint32_t step,
                       uint32_t blocks);
void eq_taps_finish_rows(const uint64_t *sums, const int32_t *stage, int8_t *output, uint32_t step,
                         uint32_t blocks);
void eq_taps_finish_12(const uint64_t *sums, const int32_t *stage, int8_t *output, uint32_t step,
                       uint32_t blocks);
void eq_taps_finish_halves(const uint64_t *sums, const int32_t *stage, int8_t *output,
                           uint32_t step, uint32_t blocks);
void eq_taps_move(uint32_t *to, const uint32_t *from, uint32_t sixes);

#else

static void multiply(const eq_taps_t *taps, uint32_t bits, const uint32_t *values,
                     const uint32_t *weights, const uint64_t *first, uint64_t *sums,
                     uint32_t groups, uint32_t words, uint32_t channels)
{
    for (uint32_t block = 0; block < channels * groups * GROUP; block++) {
        const uint32_t *row = weights + (size_t)(block / (groups * GROUP)) * words;
        const uint32_t steps = words * channels_of_word(bits) * taps->stride;
        const uint32_t b = block % (groups * GROUP);
        const uint32_t *value = values + (size_t)(b / GROUP) * steps * GROUP + b % GROUP;
        sums[block] = first[b];
        for (uint32_t i = 0; i < steps / taps->stride; i++) {
            uint64_t operand[2] = {0, 0};
            for (uint32_t tap = 0; tap < 3; tap++) {
                const uint32_t word = row[i / channels_of_word(bits)];
                const uint64_t w = field(taps, word, bits, i % channels_of_word(bits), tap);
                const int odd = taps->stride == 2 && tap == 1;
                operand[odd] |= w << (odd ? 0 : (2 - tap) / taps->stride * taps->width);
            }
            for (uint32_t k = 0; k < taps->stride; k++) {
                sums[block] += operand[k] * *value;
                value += GROUP;
            }
        }
    }
}

static void eq_taps_multiply_14_4(const uint32_t *values, const uint32_t *weights,
                                  const uint64_t *first, uint64_t *sums, uint32_t groups,
                                  uint32_t words, uint32_t channels)
{
    multiply(&eq_taps_14, 4, values, weights, first, sums, groups, words, channels);
}

static void eq_taps_multiply_14_2(const uint32_t *values, const uint32_t *weights,
                                  const uint64_t *first, uint64_t *sums, uint32_t groups,
                                  uint32_t words, uint32_t channels)
{
    multiply(&eq_taps_14, 2, values, weights, first, sums, groups, words, channels);
}

static void eq_taps_multiply_12_2(const uint32_t *values, const uint32_t *weights,
                                  const uint64_t *first, uint64_t *sums, uint32_t groups,
                                  uint32_t words, uint32_t channels)
{
    multiply(&eq_taps_12, 2, values, weights, first, sums, groups, words, channels);
}

static void eq_taps_multiply_halves_4(const uint32_t *values, const uint32_t *weights,
                                      const uint64_t *first, uint64_t *sums, uint32_t groups,
                                      uint32_t words, uint32_t channels)
{
    multiply(&eq_taps_halves, 4, values, weights, first, sums, groups, words, channels);
}

static void eq_taps_multiply_halves_2(const uint32_t *values, const uint32_t *weights,
                                      const uint64_t *first, uint64_t *sums, uint32_t groups,
                                      uint32_t words, uint32_t channels)
{
    multiply(&eq_taps_halves, 2, values, weights, first, sums, groups, words, channels);
}

/* From twice a sum less what its stage adds to a value. */
static int8_t requantize(int32_t twice, const int32_t *stage)
{
    const int32_t right = stage[EQ_TAPS_SHIFT] & 0xFF, left = stage[EQ_TAPS_SHIFT] >> 8 & 0xFF;
    const int32_t scaled = (twice + stage[EQ_TAPS_SUM]) * (1 << left);
    int32_t value = eq_smmulr(scaled, stage[EQ_TAPS_MULTIPLIER]);
    value += right != 0 && value < 0 ? -1 : 0;
    return (int8_t)eq_ssat8((value + stage[EQ_TAPS_OFFSET]) >> right);
}

static void eq_taps_finish_14(const uint64_t *sums, const int32_t *stage, int8_t *output,
                              uint32_t step, uint32_t blocks)
{
    for (uint32_t b = 1; b < blocks; b++) {
        const uint64_t carry = sums[b - 1] >> 28;
        const uint32_t even = (uint32_t)(sums[b] & 0x3FFF) + (uint32_t)(carry & 0x3FFF);
        const uint32_t odd = (uint32_t)(sums[b] >> 14 & 0x3FFF) + (uint32_t)(carry >> 14);
        output[0] = requantize((int32_t)(2 * even), stage);
        output[step] = requantize((int32_t)(2 * odd), stage);
        output += (size_t)2 * step;
    }
}

/* Lanes of 16 bits, of which 1 and 2 have changed places. */
static void eq_taps_finish_rows(const uint64_t *sums, const int32_t *stage, int8_t *output,
                                uint32_t step, uint32_t blocks)
{
    for (uint32_t b = 1; b < blocks; b++) {
        const uint64_t sum = sums[b], before = sums[b - 1];
        const uint32_t even = (uint32_t)(sum & 0xFFFF) + (uint32_t)(before >> 16 & 0xFFFF);
        const uint32_t odd = (uint32_t)(sum >> 32 & 0xFFFF) + (uint32_t)(before >> 48);
        output[0] = requantize((int32_t)(2 * even), stage);
        output[step] = requantize((int32_t)(2 * odd), stage);
        output += (size_t)2 * step;
    }
}

/* Three lanes of `width` bits; what is above them belongs to the next block. */
static void finish_three(const uint64_t *sums, const int32_t *stage, int8_t *output, uint32_t step,
                         uint32_t blocks, uint32_t width)
{
    uint64_t carry = 0;
    for (uint32_t b = 0; b < blocks; b++) {
        const uint64_t sum = sums[b] + carry;
        for (uint32_t k = 0; k < 3; k++) {
            const uint32_t lane = (uint32_t)(sum >> k * width) & ((1u << width) - 1u);
            *output = requantize((int32_t)(2 * lane), stage);
            output += step;
        }
        carry = sum >> 3 * width;
        carry |= sum >> 63 != 0 ? ~(~UINT64_C(0) >> 3 * width) : 0;
    }
}

static void eq_taps_finish_12(const uint64_t *sums, const int32_t *stage, int8_t *output,
                              uint32_t step, uint32_t blocks)
{
    finish_three(sums, stage, output, step, blocks, 12);
}

static void eq_taps_finish_halves(const uint64_t *sums, const int32_t *stage, int8_t *output,
                                  uint32_t step, uint32_t blocks)
{
    finish_three(sums, stage, output, step, blocks, 14);
}

/* Towards the start. */
static void eq_taps_move(uint32_t *to, const uint32_t *from, uint32_t sixes)
{
    for (uint32_t i = 0; i < 6 * sixes; i++) {
        to[i] = from[i];
    }
}

#endif

const eq_taps_t eq_taps_14 = {14,
                              2,
                              2,
                              0,
                              1,
                              2,
                              4,
                              1,
                              1 << 14,
                              LANES_14 | UINT64_C(1) << 55,
                              eq_taps_finish_14,
                              {eq_taps_multiply_14_4, eq_taps_multiply_14_2}};
const eq_taps_t eq_taps_rows = {14,
                                2,
                                2,
                                0,
                                1,
                                2,
                                4,
                                ROWS,
                                ROWS << 14,
                                LANES_14 | UINT64_C(1) << 55,
                                eq_taps_finish_rows,
                                {eq_taps_multiply_14_4, eq_taps_multiply_14_2}};
const eq_taps_t eq_taps_12 = {12,
                              3,
                              2,
                              2,
                              1,
                              3,
                              2,
                              1,
                              1 << 11,
                              UINT64_C(1) << 11 | UINT64_C(1) << 23 | UINT64_C(1) << 35,
                              eq_taps_finish_12,
                              {eq_taps_multiply_12_2, eq_taps_multiply_12_2}};
const eq_taps_t eq_taps_halves = {14,
                                  3,
                                  1,
                                  1,
                                  2,
                                  3,
                                  4,
                                  1,
                                  1 << 13,
                                  LANES_14,
                                  eq_taps_finish_halves,
                                  {eq_taps_multiply_halves_4, eq_taps_multiply_halves_2}};

/// Sizes ///

static uint64_t filled(uint64_t channels)
{
    return (channels + 3) / 4 * 4;
}

uint64_t eq_taps_weight_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    const uint64_t words = filled((count + 8) / 9) / channels_of_word(bits) * ROWS;
    return channels * words * sizeof(uint32_t);
}

uint64_t eq_taps_table_bytes(uint64_t channels)
{
    return channels * EQ_TAPS_WORDS * sizeof(int32_t);
}

static uint64_t blocks_of(const eq_taps_t *taps, const eq_tensor_record_t *out)
{
    return ((uint64_t)out->shape[1] - 1 + taps->before) / taps->inputs + 1;
}

static uint64_t groups_of(const eq_taps_t *taps, const eq_tensor_record_t *out)
{
    return (blocks_of(taps, out) + GROUP - 1) / GROUP;
}

/* Words of a row of the input in a group. */
static uint64_t row_words(const eq_taps_t *taps, const eq_tensor_record_t *in)
{
    return filled(in->shape[2]) * taps->stride * GROUP;
}

/* Values of the row that `finish` gives, those before the first and behind the last with it. */
static uint64_t finished(const eq_taps_t *taps, const eq_tensor_record_t *out)
{
    const uint64_t pixels = taps->inputs * blocks_of(taps, out) - taps->before + taps->junk;
    return pixels * out->shape[2];
}

uint64_t eq_taps_scratch(const eq_taps_t *taps, const eq_tensor_record_t *in,
                         const eq_tensor_record_t *out)
{
    const uint64_t groups = groups_of(taps, out);
    const uint64_t sums = (1 + ROWS + BATCH) * GROUP * sizeof(uint64_t);
    return groups * (sums + ROWS * row_words(taps, in) * sizeof(uint32_t)) +
           (finished(taps, out) + 7) / 8 * 8;
}

/// What eq_init checks ///

static int serves(const eq_taps_t *taps, const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const eq_tensor_record_t *in = call->in[0], *out = call->out;
    const uint64_t row_bits = (uint64_t)out->shape[1] * out->shape[2] * eq_width(out->bits);
    return op->kernel_height == 3 && op->kernel_width == 3 && op->dilation_height == 1 &&
           op->dilation_width == 1 && op->stride_height == taps->stride &&
           op->stride_width == taps->stride && op->weight_bits <= taps->most_bits &&
           eq_is_packed(in) && eq_width(in->bits) <= taps->most_bits && row_bits % 8 == 0;
}

/* Whether a stage says what the short way is exact for; sums reach `most`. */
static int stage_fits(const int32_t *stage, int32_t zero_point, int64_t most)
{
    const uint32_t right = (uint32_t)stage[EQ_TAPS_SHIFT] & 0xFFu;
    const uint32_t left = (uint32_t)stage[EQ_TAPS_SHIFT] >> 8 & 0xFFu;
    const uint32_t any = right == 0 || left != 0 ? EQ_TAPS_ANY : 0;
    if (right > EQ_TAPS_MOST_RIGHT || left > EQ_TAPS_MOST_LEFT || (right != 0 && left != 0) ||
        (uint32_t)stage[EQ_TAPS_SHIFT] != (right | left << 8 | any)) {
        return 0;
    }
    const int64_t sum = stage[EQ_TAPS_SUM];
    const int32_t multiplier = stage[EQ_TAPS_MULTIPLIER];
    const int32_t half = right != 0 ? 1 << (right - 1u) : 0;
    return (2 * most + (sum < 0 ? -sum : sum)) * (1 << left) < INT64_C(1) << 31 &&
           stage[EQ_TAPS_OFFSET] == half + zero_point * (int32_t)(1u << right) &&
           (multiplier == 0 || multiplier >= 1 << 30);
}

/* Whether every lane holds what its channel can reach, above and below 0, and fillings are 0. */
static int lanes_fit(const eq_taps_t *taps, const eq_call_t *call, const uint32_t *row)
{
    const uint32_t bits = call->op->weight_bits, channels = call->in[0]->shape[2];
    const uint32_t step = channels_of_word(bits), all = (uint32_t)filled(channels);
    const int64_t most = (1 << eq_width(call->in[0]->bits)) - 1, room = 1 << (taps->width - 1);
    int64_t above[3] = {0, 0, 0}, below[3] = {0, 0, 0}; /* of each tap */
    for (uint32_t i = 0; i < ROWS * all; i++) {
        for (uint32_t tap = 0; tap < 3; tap++) {
            const uint32_t value = field(taps, row[i / step], bits, i % step, tap);
            const int32_t w = (int32_t)value - (1 << (bits - 1));
            if (i % all < channels) {
                *(w < 0 ? &below[tap] : &above[tap]) += w < 0 ? -w : w;
            } else if (value != 0) {
                return 0;
            }
        }
        if ((i + 1) % (ROWS / taps->sums * all) != 0) {
            continue;
        }
        for (uint32_t tap = 0; tap + taps->taps <= 3; tap++) { /* of all rows that are summed */
            int64_t high = 0, low = 0;
            for (uint32_t k = tap; k < tap + taps->taps; k++) {
                high += above[k];
                low += below[k];
            }
            if (high * most >= room || low * most > room) {
                return 0;
            }
        }
        for (uint32_t tap = 0; tap < 3; tap++) {
            above[tap] = below[tap] = 0;
        }
    }
    return 1;
}

int eq_taps_fits(const eq_taps_t *taps, const eq_call_t *call)
{
    if (!serves(taps, call)) {
        return 0;
    }
    const uint32_t channels = call->out->shape[2];
    const uint64_t bytes =
        eq_taps_weight_bytes(1, 9 * call->in[0]->shape[2], call->op->weight_bits);
    const uint32_t *row = (const void *)call->weights;
    for (uint32_t c = 0; c < channels; c++) {
        if (!lanes_fit(taps, call, row) ||
            !stage_fits(call->bias + (size_t)EQ_TAPS_WORDS * c, call->out->zero_point,
                        taps->sums * 2 << taps->width)) {
            return 0;
        }
        row += bytes / sizeof *row;
    }
    return 1;
}

/// Packing rows of the input ///

/* The memory of a pixel, or of padding, which stays where it is. */
typedef struct {
    const int8_t *at;
    uint32_t step;
} column_t;

/* Operand i of a byte of each column; those whose fields lie apart are in `bytes`. */
static inline uint32_t operand_of(uint32_t bytes, uint32_t i, uint32_t bits, uint32_t width)
{
    const uint32_t mask = (1u << bits) - 1u;
    const uint32_t masks = mask | mask << width | (width == 12 ? mask << 24 : 0);
    return bytes >> i * bits & masks;
}

/* The operands of one byte of each column, `every` words apart; their sum. */
static inline uint64_t spread(uint32_t *to, uint32_t every, const uint32_t *quads, uint32_t from,
                              uint32_t bits, uint32_t width, uint32_t inputs)
{
    const uint32_t mask = (1u << bits) - 1u;
    const uint32_t bytes = (quads[0] >> from & 0xFFu) | (quads[1] >> from & 0xFFu) << width |
                           (width == 12 ? quads[2] >> from << 24 : 0);
    uint32_t third[4] = {0, 0, 0, 0}, sum = 0, thirds = 0;
    if (inputs == 3 && width == 14) {
        third[0] = quads[2] >> from & mask;
        third[1] = quads[2] >> (from + bits) & mask;
        if (bits == 2) {
            third[2] = quads[2] >> (from + 4) & mask;
            third[3] = quads[2] >> (from + 6) & mask;
        }
        thirds = third[0] + third[1] + third[2] + third[3];
    }
    const uint32_t first = operand_of(bytes, 0, bits, width);
    const uint32_t second = operand_of(bytes, 1, bits, width);
    to[0] = first | third[0] << 28;
    to[every] = second | third[1] << 28;
    sum = first + second;
    if (bits == 2) {
        const uint32_t another = operand_of(bytes, 2, bits, width);
        const uint32_t last = operand_of(bytes, 3, bits, width);
        to[2 * every] = another | third[2] << 28;
        to[3 * every] = last | third[3] << 28;
        sum += another + last;
    }
    return sum + ((uint64_t)thirds << 28);
}

/* The channels of `inputs` columns, whole words of memory. */
static inline uint64_t pack_columns(uint32_t *to, uint32_t every, const column_t *columns,
                                    uint32_t channels, uint32_t bits, uint32_t width,
                                    uint32_t inputs)
{
    const uint32_t sign = bits == 4 ? 0x88888888u : 0xAAAAAAAAu; /* q − qmin */
    const uint32_t per_byte = 8 / bits;
    const int8_t *a = columns[0].at, *b = columns[1].at, *c = columns[2].at;
    uint64_t sum = 0;
    for (; channels > 0; channels -= 4 * per_byte) {
        const uint32_t quads[3] = {eq_load_quad(a) ^ sign, eq_load_quad(b) ^ sign,
                                   inputs == 3 ? eq_load_quad(c) ^ sign : 0};
        a += columns[0].step;
        b += columns[1].step;
        c += inputs == 3 ? columns[2].step : 0;
        sum += spread(to, every, quads, 0, bits, width, inputs);
        sum += spread(to + every * per_byte, every, quads, 8, bits, width, inputs);
        sum += spread(to + 2 * every * per_byte, every, quads, 16, bits, width, inputs);
        sum += spread(to + 3 * every * per_byte, every, quads, 24, bits, width, inputs);
        to += 4 * every * per_byte;
    }
    return sum;
}

typedef uint64_t (*pack_t)(uint32_t *to, const column_t *columns, uint32_t channels);

static uint64_t pack_4_14_2(uint32_t *to, const column_t *columns, uint32_t channels)
{
    return pack_columns(to, GROUP, columns, channels, 4, 14, 2);
}

static uint64_t pack_2_14_2(uint32_t *to, const column_t *columns, uint32_t channels)
{
    return pack_columns(to, GROUP, columns, channels, 2, 14, 2);
}

static uint64_t pack_2_12_3(uint32_t *to, const column_t *columns, uint32_t channels)
{
    return pack_columns(to, GROUP, columns, channels, 2, 12, 3);
}

static uint64_t pack_4_14_3(uint32_t *to, const column_t *columns, uint32_t channels)
{
    return pack_columns(to, 2 * GROUP, columns, channels, 4, 14, 3);
}

static uint64_t pack_2_14_3(uint32_t *to, const column_t *columns, uint32_t channels)
{
    return pack_columns(to, 2 * GROUP, columns, channels, 2, 14, 3);
}

/* Where and how what is packed lies. */
typedef struct {
    const eq_taps_t *taps;
    const eq_call_t *call;
    pack_t pack; /* NULL: pixels are no whole words */
    uint32_t *values;
    uint64_t *parts[ROWS]; /* of each input row, for each block: what sums start from */
    uint32_t bits;         /* of memory of a value */
    uint32_t words;        /* of an input row in a group */
    uint32_t row_step;     /* from an input row to the next, in words */
    uint32_t group_step;
    uint32_t blocks;
    uint32_t padding[2]; /* zero points, as they lie in memory */
} window_t;

/* Values one by one, where pixels are no whole words of memory. */
static uint64_t pack_any(const window_t *window, uint32_t *to, const int64_t *first)
{
    const eq_call_t *call = window->call;
    const eq_tensor_record_t *in = call->in[0];
    const int32_t least = -(1 << (window->bits - 1));
    uint64_t sum = 0;
    for (uint32_t c = 0; c < in->shape[2]; c++) {
        uint32_t operand = 0;
        for (uint32_t i = 0; i < window->taps->inputs; i++) {
            const int32_t value = first[i] < 0
                                      ? in->zero_point
                                      : eq_get(call->input[0], in->bits, (uint32_t)first[i] + c);
            operand |= (uint32_t)(value - least) << i * window->taps->width;
        }
        to[c * window->taps->stride * GROUP] = operand;
        sum += operand;
    }
    return sum;
}

/* A block of a row of the input, -1 where it is outside; the columns begin at `x`. */
static uint64_t pack_block(const window_t *window, uint32_t *to, int32_t y, int32_t x)
{
    const eq_taps_t *taps = window->taps;
    const uint32_t *shape = window->call->in[0]->shape;
    column_t columns[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    int64_t first[3];
    for (uint32_t i = 0; i < taps->inputs; i++) {
        const int outside = y < 0 || x < 0 || x >= (int32_t)shape[1];
        const uint32_t pixel = outside ? 0 : (uint32_t)y * shape[1] + (uint32_t)x;
        first[i] = outside ? -1 : (int64_t)pixel * shape[2];
        columns[i].at = outside ? (const int8_t *)window->padding
                                : window->call->input[0] + pixel * (shape[2] * window->bits / 8);
        columns[i].step = outside ? 0 : 4;
        x += taps->stride;
    }
    return window->pack != NULL ? window->pack(to, columns, shape[2]) : pack_any(window, to, first);
}

/* Row y of the input, as row `slot` of the window; `parts` is of y. */
static void pack_row(const window_t *window, int32_t y, uint32_t slot, uint64_t *parts)
{
    const eq_taps_t *taps = window->taps;
    const uint32_t height = window->call->in[0]->shape[0];
    uint32_t *to = window->values + (size_t)slot * window->row_step;
    const uint32_t bits = window->call->op->weight_bits;
    const uint64_t start = taps->sums == 1 ? 0 : taps->lanes;
    int32_t x = -window->call->op->pad_left;
    y = y < (int32_t)height ? y : -1;
    for (uint32_t b = 0; b < window->blocks; b++) {
        uint32_t *group = to + (size_t)(b / GROUP) * window->group_step + b % GROUP;
        uint64_t sum = pack_block(window, group, y, x);
        uint64_t all = sum + (sum << taps->width);
        if (taps->stride == 2) {
            all += pack_block(window, group + GROUP, y, x - 1);
        } else {
            all += sum << 2 * taps->width;
        }
        parts[b] = start - (all << (bits - 1));
        x += taps->inputs * taps->stride;
    }
}

/* The rows under output row `y`: those that are there move up. */
static void pack_window(const window_t *window, uint32_t y)
{
    const uint32_t stride = window->taps->stride;
    const uint32_t kept = y == 0 ? 0 : ROWS - stride;
    for (uint32_t at = 0; at < window->blocks; at += GROUP) {
        uint32_t *row = window->values + (size_t)(at / GROUP) * window->group_step;
        const uint32_t runs = window->taps->sums == 1 && kept != 0 ? 1 : kept;
        for (uint32_t run = 0; run < runs; run++) {
            eq_taps_move(row, row + (size_t)stride * window->row_step,
                         kept / runs * (window->words / 6));
            row += window->row_step;
        }
    }
    for (uint32_t slot = kept; slot < ROWS; slot++) {
        const uint32_t row = y * stride + slot;
        pack_row(window, (int32_t)row - window->call->op->pad_top, slot, window->parts[row % ROWS]);
    }
}

/// Rows of the output ///

/*
 * Where the byte of a channel lies: where the bits of 4 << share channels fill words, as many bytes
 * that are neighbours in a packed byte are 4 apart, so that words of bytes are packed by shifts.
 */
static inline uint32_t place(uint32_t channel, uint32_t share)
{
    const uint32_t i = channel & ((4u << share) - 1u);
    return channel - i + (i & ((1u << share) - 1u)) * 4 + (i >> share);
}

/* The exponent of how many channels share a byte; 0 where they lie in their order. */
static uint32_t share_of(const eq_tensor_record_t *out)
{
    const uint32_t bits = eq_width(out->bits), share = bits == 2 ? 2 : bits == 4 ? 1 : 0;
    return out->shape[2] % (4u << share) == 0 ? share : 0;
}

typedef struct {
    uint32_t low; /* four times */
    uint32_t high;
    uint32_t mask;
} quads_t;

/* Four bytes, clamped, of which as many bits as the output has. */
static inline uint32_t clamped(const int8_t *bytes, quads_t quads)
{
    const uint32_t quad = eq_max_quad(eq_load_quad(bytes), quads.low);
    return eq_min_quad(quad, quads.high) & quads.mask;
}

/* Bytes, as `place` has them, to as many bits as the output has. */
static void store(const eq_call_t *call, int8_t *to, const int8_t *bytes, uint32_t count)
{
    const uint32_t bits = eq_width(call->out->bits), share = 8 / bits;
    const quads_t quads = {0x01010101u * (uint8_t)call->op->clamp_min,
                           0x01010101u * (uint8_t)call->op->clamp_max,
                           0x01010101u * ((1u << bits) - 1u)};
    if (call->out->shape[2] % (4 * share) == 0) {
        for (; count > 0; count -= 4 * share) {
            uint32_t word = clamped(bytes, quads);
            if (share == 2) {
                word |= clamped(bytes + 4, quads) << 4;
            } else if (share == 4) {
                word |= clamped(bytes + 4, quads) << 2;
                word |= clamped(bytes + 8, quads) << 4;
                word |= clamped(bytes + 12, quads) << 6;
            }
            eq_store_quad(to, word);
            bytes += 4 * share;
            to += 4;
        }
    }
    while (count > 0) {
        uint32_t byte = 0;
        for (uint32_t used = 0; used < 8; used += bits) {
            const int32_t value = eq_clamp(*bytes++, call->op->clamp_min, call->op->clamp_max);
            byte |= ((uint32_t)value & quads.mask & 0xFFu) << used;
            count--;
        }
        *to++ = (int8_t)byte;
    }
}

static pack_t packer(const eq_taps_t *taps, uint32_t bits)
{
    if (taps->inputs == 2) {
        return bits == 4 ? pack_4_14_2 : pack_2_14_2;
    }
    return taps->stride == 1 ? pack_2_12_3 : bits == 4 ? pack_4_14_3 : pack_2_14_3;
}

/* The three sums of a channel as one, of lanes 0, 2, 1 and 3 in 16 bits each. */
static void sum_rows(const window_t *window, uint32_t y, const uint32_t *weights,
                     eq_taps_multiply_t multiply_row, uint64_t *sums, uint32_t groups, uint32_t row)
{
    const uint32_t step = GROUP * groups;
    for (uint32_t slot = 0; slot < ROWS; slot++) {
        multiply_row(window->values + (size_t)slot * window->row_step, weights + slot * row / ROWS,
                     window->parts[(y + slot) % ROWS], sums + (size_t)slot * step, groups,
                     row / ROWS, 1);
    }
    for (uint32_t b = 0; b < window->blocks; b++) {
        uint32_t even = 0, odd = 0;
        for (uint32_t slot = 0; slot < ROWS; slot++) {
            const uint64_t sum = sums[slot * step + b];
            const uint32_t low = (uint32_t)sum, high = (uint32_t)(sum >> 32);
            even += (low & 0x3FFFu) + (((low >> 28 | high << 4) & 0x3FFFu) << 16);
            odd += (low >> 14 & 0x3FFFu) + (high >> 10 << 16);
        }
        sums[b] = even | (uint64_t)odd << 32;
    }
}

void eq_taps_run(const eq_taps_t *taps, const eq_call_t *call)
{
    const eq_operator_t *op = call->op;
    const eq_tensor_record_t *in = call->in[0], *out = call->out;
    const uint32_t groups = (uint32_t)groups_of(taps, out), channels = out->shape[2];
    const uint32_t width = out->shape[1] * channels, out_bits = eq_width(out->bits);
    window_t window = {.taps = taps,
                       .call = call,
                       .bits = eq_width(in->bits),
                       .words = (uint32_t)row_words(taps, in),
                       .blocks = (uint32_t)blocks_of(taps, out),
                       .values = call->scratch};
    const uint32_t words = ROWS * window.words * groups;
    window.row_step = taps->sums == 1 ? window.words : window.words * groups;
    window.group_step = taps->sums == 1 ? ROWS * window.words : window.words;
    const uint32_t row = ROWS * (uint32_t)filled(in->shape[2]) / channels_of_word(op->weight_bits);
    uint64_t *first = (void *)(window.values + words);
    uint64_t *sums = first + (size_t)GROUP * groups;
    for (uint32_t i = 0; i < ROWS; i++) {
        window.parts[i] = sums + (size_t)(i + BATCH) * GROUP * groups;
    }
    int8_t *bytes = (int8_t *)(sums + (size_t)(ROWS + BATCH) * GROUP * groups);
    window.pack = in->shape[2] * window.bits % 32 == 0 ? packer(taps, window.bits) : NULL;
    window.padding[0] = ((uint32_t)in->zero_point & ((1u << window.bits) - 1u)) *
                        (window.bits == 4 ? 0x11111111u : 0x55555555u);
    const eq_taps_multiply_t sum = taps->multiply[op->weight_bits > 2 ? 0 : 1];
    const uint32_t share = share_of(out), step = taps->sums == 1 ? GROUP * groups : 0;
    int8_t *output = call->output;
    for (uint32_t y = 0; y < out->shape[0]; y++) {
        pack_window(&window, y);
        for (uint32_t b = 0; b < window.blocks; b++) {
            const uint64_t part = window.parts[0][b] + window.parts[1][b] + window.parts[2][b];
            first[b] = taps->lanes + part;
        }
        const uint32_t *weights = (const void *)call->weights;
        const int32_t *stage = call->bias;
        const uint64_t *own = sums;
        for (uint32_t c = 0; c < channels; c++) {
            if (taps->sums != 1) {
                sum_rows(&window, y, weights, sum, sums, groups, row);
                weights += row;
            } else if (c % BATCH == 0) {
                const uint32_t left = channels - c;
                own = sums;
                sum(window.values, weights, first, sums, groups, row, left < BATCH ? left : BATCH);
                weights += BATCH * row;
            }
            taps->finish(own, stage, bytes + place(c, share), channels, window.blocks);
            own += step;
            stage += EQ_TAPS_WORDS;
        }
        store(call, output, bytes + (size_t)taps->junk * channels, width);
        output += width * out_bits / 8;
    }
}
