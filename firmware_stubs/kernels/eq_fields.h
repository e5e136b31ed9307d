/*
 * eq_fields.h - weights of fewer than 8 bits, exactly so many each: the layout "fields".
 *
 * As "pairs" (eq_pairs.h), but the words of two channels come in blocks of 8, of which the last is
 * filled up with zeros. A block takes as many words as a weight has bits: of w + 2^(bits−1), in
 * bytes, bits 0..3 (where it has so many) of word j stand in word j / 2, the next two in word j / 4
 * of two, the last in one word. They are unpacked once for as many pixels as scratch has room for.
 * The twin is packing.py.
 */
#ifndef EQ_FIELDS_H
#define EQ_FIELDS_H

#include "eq_pairs.h"

/* The operator, a convolution of `count` weights a channel. */
void eq_fields_run(const eq_call_t *call, uint32_t count);

/*
 * The same in the layout "field_planes": as "planes" (eq_planes_s8_ref.c), but digits lie in "fields",
 * so that the lowest level of a nested store is "fields", too. An operator's `parameter` is that of
 * "planes".
 */
void eq_field_planes_run(const eq_call_t *call, uint32_t count);

#endif
