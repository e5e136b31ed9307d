/*
 * eq_kernel.h - what a kernel gets, and the list of the kernels that are linked in.
 *
 * Private to the runtime and the kernels. A kernel trusts its call: eq_init has checked every
 * shape, offset and sum (eq_check.c).
 */
#ifndef EQ_KERNEL_H
#define EQ_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "eq_fixed.h"
#include "eq_image.h"

/* For loops that need all registers to themselves: gcc spills them where it inlines too much. */
#if defined(__GNUC__)
#define EQ_NOINLINE __attribute__((noinline))
#else
#define EQ_NOINLINE
#endif

/* For what runs once, in eq_init: small rather than fast. */
#if defined(__GNUC__)
#define EQ_ONCE __attribute__((cold))
#else
#define EQ_ONCE
#endif

/* One operator with its offsets resolved. What its family does not use points anywhere. */
typedef struct {
    const struct eq_kernel *kernel; /* the operator's own, where eq_rows_s8_ref runs it */
    const eq_operator_t *op;
    const eq_tensor_record_t *in[2];
    const eq_tensor_record_t *out;
    const int8_t *input[2];
    int8_t *output;
    const uint8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    void *scratch; /* aligned to 8, of op->scratch_bytes */
} eq_call_t;

typedef void (*eq_kernel_function_t)(const eq_call_t *call);

/* Which operands an operator has and which checks eq_init makes. */
typedef enum {
    EQ_FAMILY_CONV,
    EQ_FAMILY_DEPTHWISE,
    EQ_FAMILY_FC,
    EQ_FAMILY_ADD,
    EQ_FAMILY_POOL,
    EQ_FAMILY_SOFTMAX,
    EQ_FAMILY_GROUPED,
    EQ_FAMILY_PAD,
    EQ_FAMILY_CONCAT,
    EQ_FAMILY_TABLE,
    EQ_FAMILY_AFFINE, /* additions whose constants are those of edgeq/affine.py */
    EQ_FAMILY_ROWS,   /* not of an operator: brings the others to packed activations (eq_rows.h) */
    EQ_FAMILY_PLANES, /* nor this: brings those that read rows of weights to nested ones */
    EQ_FAMILY_GATE, /* nor this: where inputs go (eq_gate.h); by eq_form_t, what predicts errors: */
    EQ_FAMILY_GATE_TABLE,
    EQ_FAMILY_GATE_MLP,
    EQ_FAMILY_COUNT
} eq_family_t;

/* Arena bytes that a kernel needs beside its tensors, for channels of K weights. */
typedef enum {
    EQ_SCRATCH_NONE,
    EQ_SCRATCH_ROW,    /* K, or 0 where the weights have 8 bits */
    EQ_SCRATCH_PAIRS,  /* 16·⌈K/2⌉ */
    EQ_SCRATCH_TABLES, /* EQ_TABLES_BYTES */
    EQ_SCRATCH_STRIP,  /* as EQ_SCRATCH_ROW, and a row of the input and two of the output */
    EQ_SCRATCH_LAYOUT  /* what the rules of its layout say */
} eq_scratch_t;

#define EQ_TABLES_BYTES 2048u /* an int32 for each value of each input */

/*
 * What eq_init must know of a layout. Where that is not "dense", an operator's `bias` is where the
 * tables of the layout begin, int32, its `multiplier` and `shift` are 0, and weights begin at a
 * multiple of 4. `count` is the weights of a channel, at most 2^28, as are those of all channels.
 */
typedef struct {
    uint8_t layout; /* eq_layout_t */
    uint8_t packed; /* whether its kernels take packed activations as they are */
    uint64_t (*weight_bytes)(uint64_t channels, uint64_t count, uint32_t bits);
    uint64_t (*table_bytes)(uint64_t channels);
    /* The least that EQ_SCRATCH_LAYOUT takes; all that the operator has is its to use. */
    uint64_t (*scratch_bytes)(const eq_operator_t *op, const eq_tensor_record_t *in,
                              const eq_tensor_record_t *out, uint64_t count);
    /* Whether these very weights and tables are exact for every input. */
    int (*fits)(const eq_call_t *call, uint32_t count);
    /* The weights of a channel in scratch; NULL for all but EQ_FAMILY_PLANES, which has no tables and
     * no scratch of its own. */
    const int8_t *(*row)(const eq_call_t *call, uint32_t channel, uint32_t count);
} eq_layout_rules_t;

/* What a kernel still reads of its input while it writes a row of its output (eq_overlap.h). */
typedef enum {
    EQ_ORDER_NONE,     /* anything: they lie apart */
    EQ_ORDER_ROWS,     /* what the row needs; from the last row where it begins behind the input */
    EQ_ORDER_CHANNELS, /* likewise, channel by channel, each of its own channel alone */
    EQ_ORDER_VALUES,   /* what later values need, each of its channel alone, in their order */
    EQ_ORDER_PIXELS,   /* what later pixels need, in their order */
    EQ_ORDER_BUFFERED, /* nothing; the next row may read the same again */
    EQ_ORDER_RING      /* nothing; each input row is read once, unless windows are dilated */
} eq_order_t;

typedef struct eq_kernel {
    uint8_t id;      /* in kernels.toml */
    uint8_t family;  /* eq_family_t */
    uint8_t scratch; /* eq_scratch_t */
    uint8_t
        activations; /* 16: one operand or more has 16 bits; 8: none has; 4: likewise, and packed
                            ones are taken as they are */
    uint8_t order;   /* eq_order_t */
    eq_kernel_function_t run;
    const eq_layout_rules_t *rules; /* NULL: no weights */
} eq_kernel_t;

extern const eq_layout_rules_t eq_dense_rules;
extern const eq_layout_rules_t eq_pairs_rules;
extern const eq_layout_rules_t eq_fields_rules;
extern const eq_layout_rules_t eq_lanes_rules;
extern const eq_layout_rules_t eq_sixes_rules;
extern const eq_layout_rules_t eq_taps_rules;
extern const eq_layout_rules_t eq_taps_rows_rules;
extern const eq_layout_rules_t eq_taps12_rules;
extern const eq_layout_rules_t eq_halves_rules;
extern const eq_layout_rules_t eq_planes_rules;
extern const eq_layout_rules_t eq_field_planes_rules;

/* Whether eq_rows_s8_ref must bring the kernel to packed activations. */
static inline int eq_reads_bytes(const eq_kernel_t *kernel)
{
    return kernel->activations != 4 && (kernel->rules == NULL || !kernel->rules->packed);
}

/* eq_kernels.c: generated, the kernels of this firmware. */
extern const eq_kernel_t eq_kernels[];
extern const uint16_t eq_kernel_count;

/* The kernel of that id, or NULL where the firmware lacks it (eq_run.c). */
const eq_kernel_t *eq_kernel_find(uint32_t id);

/* The kernel of a family that is of no operator, or NULL where the firmware lacks it (eq_run.c). */
const eq_kernel_t *eq_kernel_of(uint32_t family);

void eq_conv_s8_ref(const eq_call_t *call);
void eq_conv_s8_dsp(const eq_call_t *call);
void eq_depthwise_s8_ref(const eq_call_t *call);
void eq_depthwise_s8_dsp(const eq_call_t *call);
void eq_depthwise_3x3_s8_dsp(const eq_call_t *call);
void eq_fc_s8_ref(const eq_call_t *call);
void eq_fc_s8_dsp(const eq_call_t *call);
void eq_add_s8_ref(const eq_call_t *call);
void eq_add_table_s8_dsp(const eq_call_t *call);
void eq_add_affine_s8_dsp(const eq_call_t *call);
void eq_max_pool_s8_ref(const eq_call_t *call);
void eq_average_pool_s8_ref(const eq_call_t *call);
void eq_max_pool_s8_dsp(const eq_call_t *call);
void eq_average_pool_s8_dsp(const eq_call_t *call);
void eq_softmax_s8_ref(const eq_call_t *call);
void eq_grouped_s8_ref(const eq_call_t *call);
void eq_pad_s8_ref(const eq_call_t *call);
void eq_concat_s8_ref(const eq_call_t *call);
void eq_table_s8_ref(const eq_call_t *call);
void eq_table_s4_dsp(const eq_call_t *call);
void eq_rows_s8_ref(const eq_call_t *call);
void eq_planes_s8_ref(const eq_call_t *call);
void eq_gate_s8_ref(const eq_call_t *call);
void eq_gate_table_s8_ref(const eq_call_t *call);
void eq_gate_mlp_s8_ref(const eq_call_t *call);
void eq_conv_s16_ref(const eq_call_t *call);
void eq_depthwise_s16_ref(const eq_call_t *call);
void eq_fc_s16_ref(const eq_call_t *call);
void eq_add_s16_ref(const eq_call_t *call);
void eq_max_pool_s16_ref(const eq_call_t *call);
void eq_average_pool_s16_ref(const eq_call_t *call);
void eq_grouped_s16_ref(const eq_call_t *call);
void eq_pad_s16_ref(const eq_call_t *call);
void eq_concat_s16_ref(const eq_call_t *call);
void eq_conv_pairs_s8_dsp(const eq_call_t *call);
void eq_fc_pairs_s8_dsp(const eq_call_t *call);
void eq_conv_fields_s8_dsp(const eq_call_t *call);
void eq_fc_fields_s8_dsp(const eq_call_t *call);
void eq_conv_field_planes_s8_dsp(const eq_call_t *call);
void eq_fc_field_planes_s8_dsp(const eq_call_t *call);
void eq_conv_lanes_s4_dsp(const eq_call_t *call);
void eq_fc_lanes_s4_dsp(const eq_call_t *call);
void eq_conv_sixes_s2_dsp(const eq_call_t *call);
void eq_conv_taps_rows_s4_dsp(const eq_call_t *call);
void eq_conv_taps_s4_dsp(const eq_call_t *call);
void eq_conv_taps12_s2_dsp(const eq_call_t *call);
void eq_conv_halves_s4_dsp(const eq_call_t *call);

/// What kernels share ///

static inline uint32_t eq_elements(const eq_tensor_record_t *tensor)
{
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2];
}

/* From a sum to a stored value: requantise, add the zero point, clamp. */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    eq_shift_t shift;
    int32_t low; /* the clamp less the zero point: clamping first cannot overflow */
    int32_t high;
    int32_t zero_point;
} eq_stage_t;

static inline eq_stage_t eq_stage(const eq_call_t *call, uint32_t channel)
{
    const int32_t zero_point = call->out->zero_point;
    const eq_stage_t stage = {call->bias[channel],
                              call->multiplier[channel],
                              eq_shift(call->shift[channel]),
                              call->op->clamp_min - zero_point,
                              call->op->clamp_max - zero_point,
                              zero_point};
    return stage;
}

static inline int8_t eq_finish(const eq_stage_t *stage, int32_t sum)
{
    const int32_t value = eq_requantize(sum, stage->multiplier, stage->shift);
    return (int8_t)(eq_clamp(value, stage->low, stage->high) + stage->zero_point);
}

/* sum + Σ weights[i] · (values[i] − zero_point) */
static inline int32_t eq_dot(const int8_t *weights, const int8_t *values, int32_t count,
                             int32_t zero_point, int32_t sum)
{
    for (int32_t i = 0; i < count; i++) {
        sum += weights[i] * (values[i] - zero_point);
    }
    return sum;
}

#endif
