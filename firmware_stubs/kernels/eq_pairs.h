/*
 * eq_pairs.h - convolutions and fully connected layers on weights in the layout "pairs".
 *
 * Two neighbouring weights of a channel are one number, h = 256·w1 + w0, and a word holds two such
 * numbers: four weights, a group. Of four values (v0, v1, v2, v3) the words
 *     high = (v1, v3)    low = (256·v0 − v1 + 127, 256·v2 − v3 + 127)
 * are made once, as int16, and then meet every channel:
 *     SMLAD(h, high) + SMLAD(SXTB16(h), low) = 256·Σ w·v + 127·(w0 + w2)
 * What is constant in it stands, with bias and input zero point, in the channel's first sum.
 * Everything is exact where the sum itself stays below 2^23, which eq_init finds from the weights.
 *
 * Weights: for each two channels, for each group, a word of each channel. K is filled up to a
 * multiple of 4, the channels to one of 2, with zeros.
 * Tables: for each two channels 8 words, see EQ_STAGE_*; no multipliers and shifts beside them.
 * The twin is packing.py.
 */
#ifndef EQ_PAIRS_H
#define EQ_PAIRS_H

#include "eq_kernel.h"

/* Words of a stage of two channels: both first sums, then for each three words. */
enum {
    EQ_STAGE_SUM = 0,
    EQ_STAGE_MULTIPLIER = 2,
    EQ_STAGE_OFFSET = 3, /* (1 << right − 1, 0 if right is 0) + (output zero point << right) */
    EQ_STAGE_SHIFT = 4,  /* right | 7 − left << 8; of channel 0 EQ_STAGE_ANY, if any right is 0 */
    EQ_STAGE_STEP = 3,
    EQ_STAGE_WORDS = 8
};
#define EQ_STAGE_ANY 0x10000
#define EQ_STRIPS 0x80000000u /* see eq_pairs_four */

#define EQ_PAIRS_MOST_RIGHT 22 /* up to which the short way is exact */
#define EQ_PAIRS_MOST_LEFT 7

/* Word j of two channels of so many groups that begin at `row`. */
typedef uint32_t (*eq_pairs_word_t)(const eq_call_t *call, const uint32_t *row, uint32_t groups,
                                    uint32_t j);

struct eq_pairs_source;
typedef void (*eq_pairs_unpack_t)(uint32_t *to, const uint32_t *from, uint32_t blocks,
                                  const struct eq_pairs_source *source);

/* How the words of two channels come about where they are not stored as they are. */
typedef struct eq_pairs_source {
    eq_pairs_unpack_t unpack; /* NULL: they are */
    uint32_t blocks;          /* of two channels */
    uint32_t words;           /* unpacked: scratch begins with them */
    uint32_t stored;          /* words from two channels to the next two */
    const eq_call_t *call;
} eq_pairs_source_t;

/* For `count` weights a channel. */
uint64_t eq_pairs_groups(uint64_t count);
uint64_t eq_pairs_table_bytes(uint64_t channels);
uint64_t eq_pairs_scratch(const eq_operator_t *op, const eq_tensor_record_t *in,
                          const eq_tensor_record_t *out, uint64_t count);

/* Whether weights and tables are exact; two channels take `row_words` words. */
int eq_pairs_fits(const eq_call_t *call, uint32_t groups, uint32_t row_words, eq_pairs_word_t word);

/* The operator, a convolution. */
void eq_pairs_run(const eq_call_t *call, uint32_t count, const eq_pairs_source_t *source);

/* The same on weights of 8 bits. */
static inline void eq_pairs_run_stored(const eq_call_t *call, uint32_t count)
{
    const eq_pairs_source_t source = {NULL, 0, 0, 0, call};
    eq_pairs_run(call, count, &source);
}

/* A fully connected layer as a convolution of one pixel; both live as long as the call. */
typedef struct {
    eq_call_t call;
    eq_operator_t op;
    eq_tensor_record_t in;
} eq_pixel_t;

void eq_pairs_pixel(eq_pixel_t *pixel, const eq_call_t *call);

#endif
