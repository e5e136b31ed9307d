/*
 * eq_image.h - the model image, format 1, as it lies in flash.
 *
 * Little-endian, position-independent, every section at a multiple of 8. The writer is
 * exporters/image.py, which packs the same fields in the same order; a test compares the two.
 * Private to the runtime: firmware includes edgeq.h only.
 */
#ifndef EQ_IMAGE_H
#define EQ_IMAGE_H

#include <stdint.h>

#define EQ_IMAGE_MAGIC 0x4D495145u /* "EQIM" */
#define EQ_IMAGE_FORMAT 1u
#define EQ_IMAGE_ALIGN 8u
#define EQ_NONE 0xFFFFu /* no tensor */

/* Bits of eq_header_t.layouts. */
typedef enum {
    EQ_LAYOUT_DENSE = 0,     /* exactly n bits each, least significant bit first, padded once */
    EQ_LAYOUT_PAIRS = 1,     /* eq_pairs.h: of 8 bits */
    EQ_LAYOUT_FIELDS = 2,    /* eq_fields.h: of fewer */
    EQ_LAYOUT_LANES = 3,     /* eq_lanes.h: of 2..4 bits, for packed activations */
    EQ_LAYOUT_SIXES = 4,     /* eq_lanes.h: of 2 bits, for activations of 2 bits */
    EQ_LAYOUT_TAPS_ROWS = 5, /* eq_taps.h: 3×3 of 2..4 bits, for packed activations; these, too: */
    EQ_LAYOUT_TAPS = 6,
    EQ_LAYOUT_TAPS12 = 7,
    EQ_LAYOUT_HALVES = 8,
    EQ_LAYOUT_PLANES = 9,       /* eq_planes_s8_ref.c: digits, of which levels share the upper */
    EQ_LAYOUT_FIELD_PLANES = 10 /* eq_fields.h: such digits in fields */
} eq_layout_t;

typedef enum {
    EQ_SECTION_TENSORS = 1,   /* eq_tensor_record_t[] */
    EQ_SECTION_OPERATORS = 2, /* eq_operator_t[] */
    EQ_SECTION_VARIANTS = 3,  /* eq_variant_t[] */
    EQ_SECTION_BLOCKS = 4,    /* eq_block_t[] */
    EQ_SECTION_PORTS = 5,     /* eq_port_t[] */
    EQ_SECTION_TABLES = 6,    /* int32 biases and multipliers, int8 shifts and tables */
    EQ_SECTION_WEIGHTS = 7,   /* packed weights; may be missing */
    EQ_SECTION_GATE = 8       /* eq_gate_t and its tables; missing without gates */
} eq_section_kind_t;

typedef struct {
    uint32_t magic;
    uint16_t format;
    uint16_t abi;
    uint32_t length;        /* of the whole image, a multiple of 8 */
    uint32_t crc32;         /* IEEE 802.3, of bytes 16 .. length */
    uint8_t model_hash[16]; /* first half of the SHA-256 of the source model */
    uint32_t layouts;       /* bit set of eq_layout_t */
    uint32_t kernels[4];    /* bit set of the kernel ids in kernels.toml */
    uint32_t arena_bytes;
    uint32_t section_count;
    uint32_t reserved; /* 0 */
} eq_header_t;

/* Follows the header, section_count times, padded to a multiple of 8. */
typedef struct {
    uint32_t kind;
    uint32_t offset; /* from the start of the image, a multiple of 8 */
    uint32_t bytes;
} eq_section_t;

typedef struct {
    uint32_t offset;   /* in the arena, a multiple of 8 */
    uint32_t shape[3]; /* height, width, channels; 1, 1, n for a vector */
    float scale;
    int16_t zero_point;
    uint8_t bits;
    uint8_t rank; /* 2 or 4 */
} eq_tensor_record_t;

/*
 * One operator. Offsets into tables and weights count from the start of their section. Which fields
 * an operator uses is its family's affair (kernels.toml); the others are 0, tensors EQ_NONE.
 */
typedef struct {
    uint16_t kernel;   /* id in kernels.toml */
    uint16_t input[2]; /* indices of tensors */
    uint16_t output;
    uint32_t weights; /* output channels × (values a channel) of weight_bits, in `layout` */
    uint32_t bias;    /* int32 per output channel, at a multiple of 4; pad: one, the value; layouts
                            but dense: their tables, and no multiplier and shift */
    uint32_t multiplier; /* as bias; add: for input 0, input 1 and the output; affine:
                            the three of edgeq/affine.py; concat: for input 0
                            and input 1; softmax: one */
    uint32_t shift;      /* int8, as many; table: 256, the outputs for -128 .. 127 */
    uint32_t scratch;    /* offset in the arena, a multiple of 8 */
    uint32_t scratch_bytes;
    int16_t clamp_min;
    int16_t clamp_max;
    uint8_t weight_bits; /* 2..8 as stored */
    uint8_t layout;      /* eq_layout_t */
    uint16_t kernel_height;
    uint16_t kernel_width;
    uint16_t stride_height;
    uint16_t stride_width;
    uint16_t dilation_height;
    uint16_t dilation_width;
    uint16_t pad_top;
    uint16_t pad_left;
    uint16_t parameter; /* grouped: groups; pad: channels before; concat: axis, 0 height, 1 width,
                           2 channels; of weights in planes: a bit set of where planes end; else 0 */
} eq_operator_t;

/* One precision of a block. */
typedef struct {
    uint16_t first_operator;
    uint16_t operator_count;
    uint16_t level;
    uint16_t reserved; /* 0 */
} eq_variant_t;

/*
 * Blocks run in order; a model without gates runs the first variant of each. With gates bodies and
 * heads alternate, a body first and last; a head has one variant.
 */
typedef struct {
    uint16_t first_variant;
    uint16_t variant_count;
} eq_block_t;

typedef struct {
    uint16_t tensor;
    uint16_t direction; /* 0 input, 1 output */
} eq_port_t;

/// Gates ///

/* By what a gate predicts errors (edgeq/gates.py). */
typedef enum {
    EQ_FORM_STATIC = 0, /* not at all: every input goes to the last exit */
    EQ_FORM_TABLE = 1,  /* by the nearest of `size` centroids */
    EQ_FORM_MLP = 2     /* by a network with `size` hidden values */
} eq_form_t;

#define EQ_GATE_VERSION 1u /* of eq_gate_t and its tables; 0 before there was one */
#define EQ_GATE_TOP 5u /* probabilities of a centroid, the greatest first; the entropy follows */
#define EQ_GATE_EXPONENTIALS 32u /* of 0 to 15 steps below the greatest logit, of 0, 16 to 240 */
#define EQ_GATE_ENTROPIES 66u    /* of probabilities from 0 to 1, lines between, and a 0 */
#define EQ_GATE_SIGMOIDS 65u     /* of -6 to 2; between them lines of EQ_GATE_LINE steps */
#define EQ_GATE_LINE 16
#define EQ_GATE_SIGMOID_ZERO 768 /* the step of 0 */

/*
 * Begins the section; offsets count from there. A form without prediction has paths and first only.
 * The predictor of a table: centroids, exits - 1 times `size` times EQ_GATE_TOP + 1 bytes, then of
 * each path that does not end at the last exit, in order, `size` rows of a byte for each option. Of an
 * MLP: exits - 1 times eq_gate_layer_t with what follows it.
 */
typedef struct {
    uint8_t form;         /* eq_form_t */
    uint8_t exits;        /* 2..8, the last one included */
    uint8_t path_count;   /* of eq_path_t at `paths` */
    uint8_t first_count;  /* of eq_first_t at `first` */
    uint16_t classes;     /* values of output 0 */
    uint16_t size;        /* 1..255; EQ_FORM_MLP: a multiple of 4; EQ_FORM_STATIC: 0 */
    uint16_t level_count; /* one more than the greatest level */
    uint16_t version;     /* EQ_GATE_VERSION */
    uint32_t tradeoff;    /* at start, Q16.16 */
    uint32_t state;       /* offset in the arena, a multiple of 8, apart from all that runs */
    uint32_t state_bytes; /* eq_gate_state_bytes */
    uint32_t paths;
    uint32_t first;
    uint32_t exponentials; /* EQ_GATE_EXPONENTIALS uint16 */
    uint32_t entropies;    /* EQ_GATE_ENTROPIES uint16 */
    uint32_t sigmoids;     /* EQ_GATE_SIGMOIDS uint16; EQ_FORM_MLP only */
    uint32_t predictor;
} eq_gate_t;

/*
 * Paths stand in the order of a tree: each before those that continue it, these by their levels. So
 * what continues a path, itself the first, are its `options`, one behind the other.
 */
typedef struct {
    uint32_t levels; /* 4 bits a block, first block lowest */
    uint16_t cost;   /* Q16, less 1; at least that of its beginning */
    uint8_t length;  /* blocks, 1..exits */
    uint8_t options;
} eq_path_t;

/* From this tradeoff on the first block runs as the path says, which is one of length 1. */
typedef struct {
    uint32_t tradeoff; /* ascending from 0 */
    uint32_t path;
} eq_first_t;

/*
 * The network of one gate. Behind it: int32 biases of the hidden values; int8 rows of weights, one for
 * each hidden value, of 2 * classes + 4 inputs; int8 columns, one for each further input (exits + 1),
 * of a weight for each hidden value; int8 weights of the output; up to a multiple of 4.
 */
typedef struct {
    int32_t hidden_shift; /* to the right, 0..30 */
    int32_t output_bias;
    int32_t output_multiplier;
    int32_t output_shift; /* likewise, 0..31 */
} eq_gate_layer_t;

#endif
