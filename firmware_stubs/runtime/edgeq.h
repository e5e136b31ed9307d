/*
 * edgeq.h - runs a model image that edgeq exported.
 *
 *     static uint8_t arena[NET_ARENA_BYTES] EQ_ALIGNED;
 *     static eq_ctx_t ctx;
 *     const eq_config_t config = {net_image, NET_IMAGE_BYTES, arena, sizeof arena};
 *
 *     if (eq_init(&ctx, &config) != EQ_OK) { ... }
 *     for (;;) {
 *         const eq_tensor_t *in = eq_input(&ctx, 0);
 *         fill(in->data);                        // before every run: the arena is reused
 *         if (eq_run(&ctx, &result) == EQ_OK) { act(result.label); }
 *     }
 *
 * C99. No heap, no recursion, no writable globals, no floating point while a model runs. The caller
 * owns every byte. A model image is constant and may be shared; a context belongs to one thread at
 * a time. What is guaranteed for damaged images stands, numbered, in README.md.
 */
#ifndef EDGEQ_H
#define EDGEQ_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The runtime's interface number; an image names the one that it was made for. */
#define EQ_ABI 1u

/* Most inputs and most outputs that a model may have. */
#define EQ_MAX_PORTS 4u

/* An exit of eq_force: none. */
#define EQ_ROUTE 0xFFFFFFFFu

#if defined(__GNUC__) || defined(__clang__)
#define EQ_MUST_USE __attribute__((warn_unused_result))
#define EQ_ALIGNED __attribute__((aligned(8)))
#else
#define EQ_MUST_USE
#define EQ_ALIGNED
#endif

/* 0 is success, EQ_MORE is progress, what is negative refuses. */
typedef enum {
    EQ_OK = 0,
    EQ_MORE = 1,           /* eq_step: operators are left to run */
    EQ_E_ARGUMENT = -1,    /* a null pointer, or a context that eq_init has not accepted */
    EQ_E_LENGTH = -2,      /* image_bytes is not what the header says, or too small for a header */
    EQ_E_MAGIC = -3,       /* not a model image, or one of the other byte order */
    EQ_E_FORMAT = -4,      /* a format, or a layout of gates, that this runtime does not read */
    EQ_E_ABI = -5,         /* made for a runtime of another ABI */
    EQ_E_CRC = -6,         /* damaged: the checksum does not match */
    EQ_E_SECTION = -7,     /* a section of unknown kind, doubled, missing, misplaced or misshapen */
    EQ_E_LAYOUT = -8,      /* a weight layout that this firmware has no code for */
    EQ_E_KERNEL = -9,      /* a kernel that this firmware was linked without */
    EQ_E_ARENA = -10,      /* the arena is missing, misaligned or smaller than the image needs */
    EQ_E_TENSOR = -11,     /* a tensor outside the arena, of impossible shape, bits or zero point */
    EQ_E_OPERATOR = -12,   /* an operator whose operands, tables or window do not fit together */
    EQ_E_ARITHMETIC = -13, /* multiplier, shift, clamp or sum bound outside what int32 can hold */
    EQ_E_GATES = -14       /* gates that do not fit together, or none where they are asked for */
} eq_status_t;

/* An input or output. Read-only but for the bytes at data. */
typedef struct {
    void *data;         /* values in the arena, row-major; images are height, width, channel */
    uint32_t bytes;     /* of data */
    uint32_t shape[3];  /* height, width, channels; 1, 1, n for a vector */
    uint8_t rank;       /* 4 for images, 2 for vectors, counting the batch of 1 */
    uint8_t bits;       /* of each value, sign included: 16 are an int16 each, 8..5 an int8, 4 and 3
                           half a byte, 2 a quarter, the first value in the lowest bits (eq_value) */
    int16_t zero_point; /* real = scale * (q - zero_point) */
    float scale;        /* for the caller; nothing here computes with it */
} eq_tensor_t;

/* What the caller provides; it must outlive the context. */
typedef struct {
    /* The model image, aligned to 8. Nothing beyond image_bytes is read. */
    const void *image;
    uint32_t image_bytes;

    /* Scratch for activations, aligned to 8, at least NAME_ARENA_BYTES. Overwritten by each run. */
    void *arena;
    uint32_t arena_bytes;
} eq_config_t;

/* The state of one model. Its fields are private; it holds no memory but its own. */
typedef struct {
    const uint8_t *image; /* NULL: not initialised */
    uint8_t *arena;
    const void *tensors; /* the sections of the image */
    const void *operators;
    const void *variants;
    const void *blocks;
    const uint8_t *tables;
    const uint8_t *weights;
    const void *gate;  /* NULL: without gates */
    uint32_t tradeoff; /* Q16.16 */
    uint16_t variant;  /* of the block */
    uint8_t last;      /* the path of the last run, by its index; so are these: */
    uint8_t taken;     /* the path so far */
    uint8_t goal;      /* of this run where it is forced; so are runs to come: */
    uint8_t forced;
    uint8_t task; /* for the gate, and what came of it */
    int8_t status;
    uint16_t block_count;
    uint16_t block; /* where eq_step stands */
    uint16_t operator_index;
    uint16_t input_count;
    uint16_t output_count;
    eq_tensor_t input[EQ_MAX_PORTS];
    eq_tensor_t output[EQ_MAX_PORTS];
} eq_ctx_t;

/* What a run decided. */
typedef struct {
    uint32_t label;      /* index of the greatest value of output 0, the first of equals */
    uint32_t confidence; /* its lead over the runner-up in output steps, 0..255, of 16-bit outputs
                            0..65535; 0 for one value */
    uint32_t exit;       /* index of the exit taken; 0 without gates */
    uint32_t path;       /* levels taken, 4 bits a block, first block lowest; 0 without gates */
    uint32_t cost;       /* of the path against the dearest one, Q16.16; 65536 without gates */
} eq_result_t;

/*
 * Checks the image once (length first, then checksum, then contents), and readies ctx. After EQ_OK
 * the image is trusted: it must not change. Cost: about 20 instructions per image byte.
 */
EQ_MUST_USE eq_status_t eq_init(eq_ctx_t *ctx, const eq_config_t *config);

/*
 * Input or output i, or NULL if there is none. Fill the inputs before every run, which computes over
 * them, unless the model was exported to retain them. Outputs are whole until the next run begins.
 */
const eq_tensor_t *eq_input(const eq_ctx_t *ctx, uint32_t i);
const eq_tensor_t *eq_output(const eq_ctx_t *ctx, uint32_t i);

/* Value i of a tensor, however it is stored; i must be below height * width * channels. */
int32_t eq_value(const eq_tensor_t *tensor, uint32_t i);

/*
 * Runs one operator. EQ_MORE: call again (a place to yield); EQ_OK: the outputs are ready, and the
 * next call starts over.
 */
EQ_MUST_USE eq_status_t eq_step(eq_ctx_t *ctx);

/* Runs to the end and fills out (which may be NULL). A run that eq_step began is finished. */
EQ_MUST_USE eq_status_t eq_run(eq_ctx_t *ctx, eq_result_t *out);

/*
 * Sets the weight of cost against error, Q16.16; the image says what it is at start. During a run it
 * counts from the next gate on. EQ_E_GATES for a model without gates.
 */
EQ_MUST_USE eq_status_t eq_set_tradeoff(eq_ctx_t *ctx, uint32_t lambda_q16);

/*
 * For tests and profiles: runs to come take this path (4 bits a block, first block lowest) and leave
 * at this exit, whatever their gates say, which are computed all the same. EQ_ROUTE as the exit gives
 * routing back. EQ_E_ARGUMENT where the model has no such path, EQ_E_GATES where it has no gates.
 */
EQ_MUST_USE eq_status_t eq_force(eq_ctx_t *ctx, uint32_t path, uint32_t exit);

/* A constant text for a status: its name. */
const char *eq_status_name(eq_status_t status);

#ifdef __cplusplus
}
#endif

#endif
