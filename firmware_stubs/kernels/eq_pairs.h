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
 * multiple of 4, the channels to one of 2, with zeros. Of fewer than 8 bits: for each two channels
 * blocks of 8 such words, as fields of w + 2^(bits−1), see eq_pairs.c.
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

#define EQ_PAIRS_MOST_RIGHT 22 /* up to which the six instructions are exact */
#define EQ_PAIRS_MOST_LEFT 7

/* `count` weights a channel. */
void eq_pairs_run(const eq_call_t *call, uint32_t count);

#endif
