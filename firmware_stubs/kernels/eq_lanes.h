/*
 * eq_lanes.h - 1×1 convolutions and fully connected layers of packed activations and weights of
 * 2..4 bits: many products by one multiplication of 32 × 32 bits, summed in 64 (UMLAL).
 *
 * Weights are stored as w + 2^(bits−1), values u are taken as q − qmin: both without a sign. Two
 * channels of a weight stand in one operand, values of two or three pixels in the other; their
 * product has a lane for each pair of these (edgeq/lanes.py). Sums in lanes are exact until one
 * takes more bits than a lane has; eq_init finds from the weights themselves that none does.
 *
 * Layout "lanes": weights 28 bits apart, values 14, two multiplications for four pixels. Channels
 * too long for their lanes are summed in segments. One pixel alone has lanes of 28 bits.
 * Layout "sixes": 2-bit weights 30 bits apart, 2-bit values 10, for six pixels; no segments. Lanes
 * begin with EQ_LANES_START less 2^(bits−1)·Σ u, so that they hold EQ_LANES_START + Σ w·u.
 *
 * Weights: for each two channels, units of 8 steps. Operand k is a word rotated to the right and
 * masked, whose low bits are channel 0 and whose high bits channel 1:
 *     lanes, 4 and 3 bits: word k / 4, by 8·(k % 4) + 4
 *     lanes, 2 bits:       word k / 8, by 4, 6, 12, 14, 20, 22, 28, 30
 *     sixes:               word k / 8, by 4·(k % 8) + 2
 * That is 4 or 2 bits a weight. K is filled up to a unit, the channels to two, with fields of 0.
 * Tables: three words (EQ_LANES_UNITS, ...), then four a channel, see EQ_LANES_*. The twin is packing.py.
 */
#ifndef EQ_LANES_H
#define EQ_LANES_H

#include "eq_kernel.h"

enum {
    EQ_LANES_UNITS = 0, /* of a segment: as many as there are, or a multiple of 4 */
    EQ_LANES_START = 1, /* of "sixes", else 0 */
    EQ_LANES_ANY = 2,   /* whether the shift of any channel is not to the right */
    EQ_LANES_HEADER = 3
};

/* Words of a channel. */
enum {
    EQ_LANES_SUM = 0, /* doubled: bias + (qmin − input zero point)·Σ w − EQ_LANES_START */
    EQ_LANES_MULTIPLIER = 1,
    EQ_LANES_ADDEND = 2, /* (1 << right − 1, 0 if right is 0) + (output zero point << right) */
    EQ_LANES_SHIFT = 3,  /* right | left << 8 | EQ_LANES_EXACT if right is 0 */
    EQ_LANES_WORDS = 4
};
#define EQ_LANES_EXACT 0x10000

#define EQ_LANES_MOST_RIGHT 22
#define EQ_LANES_MOST_LEFT 7

/* The operator: a convolution of 1×1, or a fully connected layer. */
void eq_lanes_run(const eq_call_t *call);
void eq_sixes_run(const eq_call_t *call);

#endif
