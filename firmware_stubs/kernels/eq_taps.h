/*
 * eq_taps.h - convolutions of 3×3 on packed activations and weights of at most 4 bits, several
 * products by one multiplication: the layouts "taps", "taps_rows", "taps12"
 * and "halves".
 *
 * An operand of three taps of a row and an operand of two or three activations of the row are
 * polynomials, whose product has in each lane what belongs to one output:
 *     (w2 + w1·2^L + w0·2^2L) · (u0 + u1·2^L) = w2·u0 + (w1·u0 + w2·u1)·2^L + ...
 * UMLAL sums such products in 64 bits. Weights stand in the operand as w + 2^(bits−1), and
 * activations as u = q − qmin: unsigned. What the offset of the weights adds, in every lane, is the
 * offset times the sum of the activations' operands: known for all channels once they are packed,
 * and what sums start from. So lanes hold sums of w·u when they are complete, and it does not matter
 * what they hold before: all of K is summed at once, and exact where these sums, of the real
 * weights, fit a lane beside 2^(L−1), which eq_init finds. Every channel's sums are offset by that.
 *
 * Three operands of activations ("blocks") meet one of weights. Block b contributes to outputs
 * inputs·b − before and on; to those beyond its own `inputs` as the next block's carry.
 *     taps    stride 1, L = 14, two activations a block; lanes of two blocks are added when extracted
 *     taps_rows  the same, but the three rows are summed apart, for K beyond what lanes hold
 *     taps12  stride 1, L = 12, three activations; weights and activations of 2 bits
 *     halves  stride 2, L = 14: even columns meet w2 + w0·2^14, odd ones w1; three outputs a block
 *
 * Weights: for each channel, row of the window and input channel the fields w + 2^(bits−1) of 4
 * (bits 3 and 4) or 2 bits; two or four input channels a word, which are filled up to a multiple of
 * four. The lowest bits of the fields of taps 0, 1, 2 in a word, channel by channel:
 *     taps, 4 bits     28 14 0, 4 22 8                        (and taps_rows)
 *     taps, 2 bits     28 14 0, 30 16 2, 4 22 8, 6 24 10      (and taps_rows)
 *     taps12           24 12 0, 26 14 2, 28 16 4, 30 18 6
 *     halves, 4 bits   14 8 0, 18 22 4
 *     halves, 2 bits   14 8 0, 16 10 2, 18 22 4, 20 24 6
 * The twin is taps.py.
 * Tables: for each channel 4 words, see EQ_TAPS_SUM.
 */
#ifndef EQ_TAPS_H
#define EQ_TAPS_H

#include "eq_kernel.h"

/* Words of a stage. */
enum {
    EQ_TAPS_SUM =
        0, /* twice: bias − zero point · Σ w, the zero point less qmin, less lane offsets */
    EQ_TAPS_MULTIPLIER = 1,
    EQ_TAPS_OFFSET = 2, /* (1 << right − 1, 0 if right is 0) + (output zero point << right) */
    EQ_TAPS_SHIFT = 3,  /* right | left << 8 | EQ_TAPS_ANY, if right is 0 or left is not */
    EQ_TAPS_WORDS = 4
};
#define EQ_TAPS_ANY 0x10000

#define EQ_TAPS_MOST_RIGHT 22
#define EQ_TAPS_MOST_LEFT 7

enum { EQ_TAPS_BLOCKS = 3 /* of a group */ };

/*
 * Sums of `groups` groups of blocks, channel by channel: for each group three that start from `first`
 * meet the channel's `words` words of weights. `values` has operands as the words need them, three blocks each.
 */
typedef void (*eq_taps_multiply_t)(const uint32_t *values, const uint32_t *weights,
                                   const uint64_t *first, uint64_t *sums, uint32_t groups,
                                   uint32_t words, uint32_t channels);

/* From sums of blocks to bytes, `step` apart. */
typedef void (*eq_taps_finish_t)(const uint64_t *sums, const int32_t *stage, int8_t *output,
                                 uint32_t step, uint32_t blocks);

typedef struct {
    uint8_t width;  /* L */
    uint8_t inputs; /* activations of an operand, and outputs of a block */
    uint8_t before; /* outputs of block 0 before the first */
    uint8_t junk;   /* of these, what `finish` gives nevertheless */
    uint8_t stride; /* of columns, and operands of an input channel */
    uint8_t taps;   /* that meet in a lane: 2 neighbours, or all 3 */
    uint8_t most_bits;
    uint8_t sums;   /* of a channel: 1, or one of each row of the window */
    int32_t offset; /* of all sums by lane offsets */
    uint64_t lanes; /* these, in their lanes */
    eq_taps_finish_t finish;
    eq_taps_multiply_t multiply[2]; /* weights of 4 and of 2 bits of memory */
} eq_taps_t;

extern const eq_taps_t eq_taps_14;
extern const eq_taps_t eq_taps_rows;
extern const eq_taps_t eq_taps_12;
extern const eq_taps_t eq_taps_halves;

uint64_t eq_taps_weight_bytes(uint64_t channels, uint64_t count, uint32_t bits);
uint64_t eq_taps_table_bytes(uint64_t channels);
uint64_t eq_taps_scratch(const eq_taps_t *taps, const eq_tensor_record_t *in,
                         const eq_tensor_record_t *out);
int eq_taps_fits(const eq_taps_t *taps, const eq_call_t *call);
void eq_taps_run(const eq_taps_t *taps, const eq_call_t *call);

#endif
