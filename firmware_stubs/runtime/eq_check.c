/*
 * eq_check.c - eq_init: everything that the rest of the runtime relies on, checked once.
 *
 * The order is that of eq_status_t. Each function returns the first fault that it finds. Sizes are
 * computed in 64 bits: no product below can wrap, for the reasons given where they are formed.
 */
#include <stddef.h>

#include "edgeq.h"
#include "eq_check.h"
#include "eq_crc32.h"
#include "eq_gate.h"
#include "eq_image.h"
#include "eq_kernel.h"
#include "eq_overlap.h"
#include "eq_rows.h"

#define MOST_BYTES 0x7FFFFFF8u   /* of an arena: offsets and indices are int32 */
#define MOST_VALUES 0x7FFFFFFFu  /* of a tensor: so are these indices */
#define MOST_PACKED (1u << 29)   /* of a packed tensor: bit positions are uint32; of 16 bits */
#define MOST_WEIGHTS (1u << 28)  /* of an operator: bit positions are uint32 */
#define MOST_POSITION (1u << 30) /* of a window: positions are int32 */
#define MOST_SUM (UINT64_C(1) << 30)
#define MOST_WIDE (UINT64_C(1) << 47) /* of sums of 16-bit activations: their products fit int64 */
#define MOST_SOFTMAX 4095u            /* values in a row: sums are Q12.19 */

static int aligned(const void *pointer)
{
    return (uintptr_t)pointer % EQ_IMAGE_ALIGN == 0;
}

/// Header and sections ///

/* Bit set of what the kernels of this firmware read. */
static uint32_t known_layouts(void)
{
    uint32_t layouts = 1u << EQ_LAYOUT_DENSE; /* an image without weights names it, too */
    for (uint16_t i = 0; i < eq_kernel_count; i++) {
        if (eq_kernels[i].rules != NULL) {
            layouts |= 1u << eq_kernels[i].rules->layout;
        }
    }
    return layouts;
}

EQ_ONCE static eq_status_t check_header(const eq_config_t *config)
{
    const eq_header_t *header = config->image;
    const uint8_t *bytes = config->image;
    if (config->image_bytes < sizeof *header || header->length != config->image_bytes ||
        header->length % EQ_IMAGE_ALIGN != 0) {
        return EQ_E_LENGTH;
    }
    if (header->magic != EQ_IMAGE_MAGIC) {
        return EQ_E_MAGIC;
    }
    if (header->format != EQ_IMAGE_FORMAT) {
        return EQ_E_FORMAT;
    }
    if (header->abi != EQ_ABI) {
        return EQ_E_ABI;
    }
    if (header->crc32 != eq_crc32(bytes + 16, header->length - 16)) {
        return EQ_E_CRC;
    }
    if ((header->layouts & ~known_layouts()) != 0) {
        return EQ_E_LAYOUT;
    }
    for (uint32_t id = 0; id < 128; id++) {
        if ((header->kernels[id / 32] >> id % 32 & 1u) != 0 && eq_kernel_find(id) == NULL) {
            return EQ_E_KERNEL;
        }
    }
    if (config->arena == NULL || !aligned(config->arena) ||
        config->arena_bytes < header->arena_bytes || header->arena_bytes > MOST_BYTES) {
        return EQ_E_ARENA;
    }
    return header->reserved == 0 ? EQ_OK : EQ_E_SECTION;
}

static uint32_t record_bytes(uint32_t kind)
{
    switch (kind) {
    case EQ_SECTION_TENSORS:
        return sizeof(eq_tensor_record_t);
    case EQ_SECTION_OPERATORS:
        return sizeof(eq_operator_t);
    case EQ_SECTION_VARIANTS:
        return sizeof(eq_variant_t);
    case EQ_SECTION_BLOCKS:
        return sizeof(eq_block_t);
    case EQ_SECTION_PORTS:
        return sizeof(eq_port_t);
    default:
        return 0; /* bytes, no records */
    }
}

/* Sections stand in the order of their offsets and do not overlap. */
EQ_ONCE static eq_status_t find_sections(eq_view_t *view)
{
    const eq_header_t *header = view->header;
    const eq_section_t *sections = (const void *)(view->image + sizeof *header);
    uint64_t end = sizeof *header + (uint64_t)header->section_count * sizeof *sections;
    if (end > header->length) {
        return EQ_E_SECTION;
    }
    for (uint32_t i = 0; i < header->section_count; i++) {
        const eq_section_t *section = &sections[i];
        const uint32_t kind = section->kind;
        if (kind == 0 || kind >= EQ_SECTION_KINDS || view->data[kind] != NULL ||
            section->offset % EQ_IMAGE_ALIGN != 0 || section->offset < end ||
            (uint64_t)section->offset + section->bytes > header->length) {
            return EQ_E_SECTION;
        }
        const uint32_t size = record_bytes(kind);
        if (size != 0 && (section->bytes % size != 0 || section->bytes / size > UINT16_MAX)) {
            return EQ_E_SECTION;
        }
        end = (uint64_t)section->offset + section->bytes;
        view->data[kind] = view->image + section->offset;
        view->bytes[kind] = section->bytes;
        view->count[kind] = size != 0 ? section->bytes / size : 0;
    }
    for (uint32_t kind = EQ_SECTION_TENSORS; kind <= EQ_SECTION_TABLES; kind++) {
        if (view->data[kind] == NULL || (record_bytes(kind) != 0 && view->count[kind] == 0)) {
            return EQ_E_SECTION;
        }
    }
    return EQ_OK;
}

EQ_ONCE static eq_status_t check_chain(const eq_view_t *view)
{
    const eq_variant_t *variants = (const void *)view->data[EQ_SECTION_VARIANTS];
    for (uint32_t i = 0; i < view->count[EQ_SECTION_VARIANTS]; i++) {
        const eq_variant_t *variant = &variants[i];
        if (variant->operator_count == 0 || variant->reserved != 0 || variant->level > 15 ||
            (uint32_t)variant->first_operator + variant->operator_count >
                view->count[EQ_SECTION_OPERATORS]) {
            return EQ_E_SECTION;
        }
    }
    const eq_block_t *blocks = (const void *)view->data[EQ_SECTION_BLOCKS];
    for (uint32_t i = 0; i < view->count[EQ_SECTION_BLOCKS]; i++) {
        if (blocks[i].variant_count == 0 ||
            (uint32_t)blocks[i].first_variant + blocks[i].variant_count >
                view->count[EQ_SECTION_VARIANTS]) {
            return EQ_E_SECTION;
        }
    }
    return EQ_OK;
}

/// Tensors ///

/* The least and greatest value of n bits. */
static int32_t least(uint32_t bits)
{
    return -(1 << (bits - 1u));
}

static int32_t greatest(uint32_t bits)
{
    return (1 << (bits - 1u)) - 1;
}

/* Functions of their own, which keep eq_init small. */
EQ_ONCE EQ_NOINLINE static uint32_t width_of(const eq_tensor_record_t *tensor)
{
    return eq_width(tensor->bits);
}

EQ_ONCE EQ_NOINLINE uint32_t eq_bytes_of(const eq_tensor_record_t *tensor)
{
    return eq_tensor_bytes(tensor);
}

static int tensor_fits(const eq_tensor_record_t *tensor, uint32_t arena_bytes)
{
    const uint64_t pixels = (uint64_t)tensor->shape[0] * tensor->shape[1]; /* below 2^64 */
    if (pixels == 0 || pixels > MOST_VALUES || tensor->shape[2] == 0 || tensor->bits < 2 ||
        (tensor->bits > 8 && (tensor->bits != 16 || tensor->zero_point != 0))) {
        return 0;
    }
    const uint64_t values = pixels * tensor->shape[2]; /* below 2^63 */
    const uint64_t most = width_of(tensor) == 8 ? MOST_VALUES : MOST_PACKED;
    const int vector = tensor->shape[0] == 1 && tensor->shape[1] == 1;
    return tensor->offset % EQ_IMAGE_ALIGN == 0 && values <= most &&
           (uint64_t)tensor->offset + eq_bytes_of(tensor) <= arena_bytes &&
           (tensor->rank == 4 || (tensor->rank == 2 && vector)) &&
           tensor->zero_point >= least(tensor->bits) &&
           tensor->zero_point <= greatest(tensor->bits);
}

/* The kernel of a family that has one, of no operator, if the header names it. */
EQ_ONCE EQ_NOINLINE static const eq_kernel_t *named(const eq_header_t *header, uint32_t family)
{
    const eq_kernel_t *kernel = eq_kernel_of(family);
    const int is =
        kernel != NULL && (header->kernels[kernel->id / 32] >> kernel->id % 32 & 1u) != 0;
    return is ? kernel : NULL;
}

EQ_ONCE static eq_status_t check_tensors(const eq_view_t *view)
{
    const eq_tensor_record_t *tensors = (const void *)view->data[EQ_SECTION_TENSORS];
    for (uint32_t i = 0; i < view->count[EQ_SECTION_TENSORS]; i++) {
        if (!tensor_fits(&tensors[i], view->header->arena_bytes)) {
            return EQ_E_TENSOR;
        }
    }
    return EQ_OK;
}

static int overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes; /* all inside an arena below 2^31 */
}

EQ_ONCE EQ_NOINLINE static int tensors_overlap(const eq_tensor_record_t *a,
                                               const eq_tensor_record_t *b)
{
    return overlap(a->offset, eq_bytes_of(a), b->offset, eq_bytes_of(b));
}

static int same_shape(const eq_tensor_record_t *a, const eq_tensor_record_t *b)
{
    return a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1] && a->shape[2] == b->shape[2];
}

/// Arithmetic ///

/* The greatest |x − zero point| of what a tensor's memory may hold, whoever wrote it. */
EQ_ONCE EQ_NOINLINE static uint32_t reach(const eq_tensor_record_t *tensor)
{
    const uint32_t width = width_of(tensor);
    const int32_t below = tensor->zero_point - least(width);
    const int32_t above = greatest(width) - tensor->zero_point;
    return (uint32_t)(below > above ? below : above);
}

/*
 * Whether a sum of at most `bound` may be requantised: bounds are below 2^31, but for sums of 16-bit
 * activations, below 2^47, which right shifts bring there. These are 2^16 and above, so that what
 * shifts one left is at most 14. A mean's multiplier, divided by its taps, may have one bit less than
 * the others.
 */
EQ_ONCE EQ_NOINLINE static int scale_fits(int32_t multiplier, int32_t shift, uint64_t bound)
{
    if ((multiplier != 0 && multiplier < 1 << 29) || shift < -31 || shift > 30) {
        return 0;
    }
    return shift < 0 ? (uint32_t)(bound >> 16) >> -shift < 1u << 15
                     : bound <= (uint32_t)INT32_MAX >> shift;
}

static uint64_t magnitude_of(int64_t value)
{
    return (uint64_t)(value < 0 ? -value : value);
}

/* Whether `count` items of `size` bytes at an offset lie inside the tables. */
static int in_tables(const eq_view_t *view, uint32_t offset, uint64_t count, uint32_t size)
{
    return offset % size == 0 && offset + count * size <= view->bytes[EQ_SECTION_TABLES];
}

static const int32_t *table_s32(const eq_view_t *view, uint32_t offset)
{
    return (const void *)(view->data[EQ_SECTION_TABLES] + offset);
}

static const int8_t *table_s8(const eq_view_t *view, uint32_t offset)
{
    return (const int8_t *)view->data[EQ_SECTION_TABLES] + offset;
}

/// Operators ///

/* Dense weights, which have a bias, a multiplier and a shift for each channel. */
static uint64_t dense_bytes(uint64_t channels, uint64_t count, uint32_t bits)
{
    return (channels * count * bits + 7) / 8;
}

static uint64_t bias_bytes(uint64_t channels)
{
    return channels * sizeof(int32_t);
}

EQ_ONCE static int dense_fits(const eq_call_t *call, uint32_t count)
{
    const eq_tensor_record_t *in = call->in[0];
    const uint32_t bits =
        call->op->layout == EQ_LAYOUT_DENSE ? call->op->weight_bits : 8; /* digits */
    const uint64_t products = ((uint64_t)count << (bits - 1)) * reach(in);
    const uint64_t most = eq_is_wide(in) ? MOST_WIDE : MOST_SUM; /* products are below 2^51 */
    for (uint32_t i = 0; i < call->out->shape[2]; i++) {
        const uint64_t bound = magnitude_of(call->bias[i]) + products;
        if (bound >= most || !scale_fits(call->multiplier[i], call->shift[i], bound)) {
            return 0;
        }
    }
    return 1;
}

const eq_layout_rules_t eq_dense_rules = {EQ_LAYOUT_DENSE, 0,   dense_bytes, bias_bytes, NULL,
                                          dense_fits,      NULL};

/* What unpacked activations take, and behind it what the kernel itself does. */
EQ_ONCE EQ_NOINLINE static uint64_t scratch_need(const eq_operands_t *o, uint64_t weights)
{
    const uint64_t row = eq_stored_in_bytes(o->op) ? 0 : weights;
    switch (o->kernel->scratch) {
    case EQ_SCRATCH_ROW:
        return o->unpacked + row;
    case EQ_SCRATCH_STRIP:
        return o->unpacked + row + eq_row(o->in) + 2 * (uint64_t)eq_row(o->out);
    case EQ_SCRATCH_PAIRS:
        return o->unpacked + 16 * ((weights + 1) / 2);
    case EQ_SCRATCH_TABLES:
        return o->unpacked + EQ_TABLES_BYTES;
    case EQ_SCRATCH_LAYOUT:
        return o->unpacked + o->kernel->rules->scratch_bytes(o->op, o->in, o->out, weights);
    default:
        return o->unpacked;
    }
}

static int on_scratch(const eq_operator_t *op, const eq_tensor_record_t *tensor)
{
    return overlap(op->scratch, op->scratch_bytes, tensor->offset, eq_bytes_of(tensor));
}

EQ_ONCE EQ_NOINLINE static int scratch_fits(const eq_view_t *view, const eq_operands_t *o,
                                            uint64_t weights)
{
    const eq_operator_t *op = o->op;
    if (op->scratch_bytes < scratch_need(o, weights) || op->scratch % EQ_IMAGE_ALIGN != 0 ||
        (uint64_t)op->scratch + op->scratch_bytes > view->header->arena_bytes) {
        return 0;
    }
    return op->scratch_bytes == 0 || (!on_scratch(op, o->in) && !on_scratch(op, o->out) &&
                                      (o->other == NULL || !on_scratch(op, o->other)));
}

/*
 * The tables of a layout, and what is in them and in the weights. Layouts without tables of their own
 * have those of dense weights.
 */
EQ_ONCE static eq_status_t check_layout(const eq_view_t *view, const eq_operands_t *o,
                                        const eq_layout_rules_t *rules, uint32_t weights)
{
    const eq_operator_t *op = o->op;
    const eq_layout_rules_t *scales = rules->table_bytes != NULL ? rules : &eq_dense_rules;
    const uint32_t channels = o->out->shape[2];
    const uint64_t words = scales->table_bytes(channels) / sizeof(int32_t);
    const int scaled =
        scales == &eq_dense_rules
            ? in_tables(view, op->multiplier, channels, sizeof(int32_t)) &&
                  in_tables(view, op->shift, channels, sizeof(int8_t))
            : op->weights % sizeof(int32_t) == 0 && (op->multiplier | op->shift) == 0;
    if (!scaled || !in_tables(view, op->bias, words, sizeof(int32_t))) {
        return EQ_E_OPERATOR;
    }
    const eq_call_t call = {.kernel = o->kernel,
                            .op = op,
                            .in = {o->in, o->in},
                            .out = o->out,
                            .weights = view->data[EQ_SECTION_WEIGHTS] + op->weights,
                            .bias = table_s32(view, op->bias),
                            .multiplier = table_s32(view, op->multiplier),
                            .shift = table_s8(view, op->shift)};
    const int fits =
        rules->fits(&call, weights) && (scales == rules || scales->fits(&call, weights));
    return fits ? EQ_OK : EQ_E_ARITHMETIC;
}

/* Whether the output lies clear of the input, or over it as far as the kernel allows. */
EQ_ONCE EQ_NOINLINE static int output_follows(const eq_operands_t *o)
{
    if (!tensors_overlap(o->in, o->out)) {
        return 1;
    }
    return eq_lies_over(eq_order(o->kernel, o->in, o->out), o->op, o->in, o->out);
}

/* An operator with `weights` weights (at most 2^63) a channel. */
EQ_ONCE static eq_status_t check_weighted(const eq_view_t *view, const eq_operands_t *o,
                                          uint64_t weights)
{
    const eq_operator_t *op = o->op;
    const eq_kernel_t *planes =
        op->layout == EQ_LAYOUT_PLANES ? named(view->header, EQ_FAMILY_PLANES) : NULL;
    const eq_layout_rules_t *rules = planes != NULL ? planes->rules : o->kernel->rules;
    const uint32_t channels = o->out->shape[2];
    if (op->layout != rules->layout) {
        return EQ_E_LAYOUT;
    }
    if (o->other != NULL || !output_follows(o) || op->weight_bits < 2 || op->weight_bits > 8 ||
        weights > MOST_WEIGHTS || weights * channels > MOST_WEIGHTS) {
        return EQ_E_OPERATOR;
    }
    const uint64_t packed = rules->weight_bytes(channels, weights, op->weight_bits);
    if (op->weights + packed > view->bytes[EQ_SECTION_WEIGHTS] || !scratch_fits(view, o, weights)) {
        return EQ_E_OPERATOR;
    }
    return check_layout(view, o, rules, (uint32_t)weights);
}

/* Whether every position that one axis of a window can take is an int32 with room to spare. */
EQ_ONCE static int axis_fits(uint32_t outputs, uint32_t taps, uint32_t stride, uint32_t dilation)
{
    const uint64_t farthest = (uint64_t)(outputs - 1) * stride + (uint64_t)taps * dilation;
    return taps != 0 && stride != 0 && dilation != 0 && farthest < MOST_POSITION;
}

EQ_ONCE static int window_fits(const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    return o->in->rank == 4 && o->out->rank == 4 &&
           axis_fits(o->out->shape[0], op->kernel_height, op->stride_height, op->dilation_height) &&
           axis_fits(o->out->shape[1], op->kernel_width, op->stride_width, op->dilation_width);
}

EQ_ONCE eq_status_t eq_check_conv(const eq_view_t *view, const eq_operands_t *o)
{
    const uint32_t taps = (uint32_t)o->op->kernel_height * o->op->kernel_width;
    return window_fits(o) ? check_weighted(view, o, (uint64_t)taps * o->in->shape[2])
                          : EQ_E_OPERATOR;
}

EQ_ONCE eq_status_t eq_check_depthwise(const eq_view_t *view, const eq_operands_t *o)
{
    const uint32_t taps = (uint32_t)o->op->kernel_height * o->op->kernel_width;
    const int divides = o->out->shape[2] % o->in->shape[2] == 0;
    return window_fits(o) && divides ? check_weighted(view, o, taps) : EQ_E_OPERATOR;
}

EQ_ONCE eq_status_t eq_check_fc(const eq_view_t *view, const eq_operands_t *o)
{
    const int vector = o->out->shape[0] == 1 && o->out->shape[1] == 1;
    return vector ? check_weighted(view, o, eq_elements(o->in)) : EQ_E_OPERATOR;
}

/* What an operator without weights does not use is 0, so that eq_run may add it to a pointer. */
static int scratch_only(const eq_view_t *view, const eq_operands_t *o)
{
    return scratch_need(o, 0) == 0 ? (o->op->scratch | o->op->scratch_bytes) == 0
                                   : scratch_fits(view, o, 0);
}

static int without_weights(const eq_view_t *view, const eq_operands_t *o)
{
    return (o->op->weights | o->op->bias) == 0 && scratch_only(view, o);
}

/* The output may be an input that is stored as it is: bytes are read before they are written. */
static int in_place_or_apart(const eq_tensor_record_t *in, const eq_tensor_record_t *out)
{
    const int same = in->offset == out->offset && width_of(in) == width_of(out);
    return same || !tensors_overlap(in, out);
}

/* The operands of an addition, and three multipliers. */
EQ_ONCE static int adds(const eq_view_t *view, const eq_operands_t *o)
{
    return without_weights(view, o) && o->other != NULL && same_shape(o->in, o->other) &&
           same_shape(o->in, o->out) && in_place_or_apart(o->in, o->out) &&
           in_place_or_apart(o->other, o->out) &&
           in_tables(view, o->op->multiplier, 3, sizeof(int32_t));
}

EQ_ONCE eq_status_t eq_check_add(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    if (!adds(view, o) || !in_tables(view, op->shift, 3, sizeof(int8_t))) {
        return EQ_E_OPERATOR;
    }
    const eq_tensor_record_t *inputs[2] = {o->in, o->other};
    const int32_t *multiplier = table_s32(view, op->multiplier);
    const int8_t *shift = table_s8(view, op->shift);
    const uint32_t left = o->kernel->activations > 8 ? EQ_ADD_LEFT_SHIFT_WIDE : EQ_ADD_LEFT_SHIFT;
    uint64_t bound = 0;
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t term = reach(inputs[i]) << left; /* at most 2^30 */
        if (!scale_fits(multiplier[i], shift[i], term)) {
            return EQ_E_ARITHMETIC;
        }
        bound += (uint32_t)eq_requantize((int32_t)term, multiplier[i], eq_shift(shift[i]));
    }
    return bound <= INT32_MAX && scale_fits(multiplier[2], shift[2], bound) ? EQ_OK
                                                                            : EQ_E_ARITHMETIC;
}

/* A term is a factor times at most 128, divided by 256 and rounded. */
EQ_ONCE eq_status_t eq_check_affine(const eq_view_t *view, const eq_operands_t *o)
{
    if (!adds(view, o) || o->op->shift != 0) {
        return EQ_E_OPERATOR;
    }
    const int32_t *constant = table_s32(view, o->op->multiplier);
    const uint64_t bound = (magnitude_of(constant[0]) + 1) / 2 +
                           (magnitude_of(constant[1]) + 1) / 2 + magnitude_of(constant[2]);
    return bound <= INT32_MAX ? EQ_OK : EQ_E_ARITHMETIC;
}

/* Whether the first and the last window of an axis, and so all between, hold an input. */
EQ_ONCE static int axis_meets(uint32_t inputs, uint32_t outputs, uint32_t taps, uint32_t stride,
                              uint32_t pad)
{
    return taps > pad && (uint64_t)(outputs - 1) * stride < (uint64_t)inputs + pad;
}

EQ_ONCE eq_status_t eq_check_pool(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    const eq_tensor_record_t *in = o->in;
    const eq_tensor_record_t *out = o->out;
    if (!without_weights(view, o) || (op->multiplier | op->shift) != 0 || o->other != NULL ||
        !window_fits(o) || op->dilation_height != 1 || op->dilation_width != 1 ||
        in->shape[2] != out->shape[2] || !output_follows(o) || in->zero_point != out->zero_point ||
        in->bits != out->bits ||
        !axis_meets(in->shape[0], out->shape[0], op->kernel_height, op->stride_height,
                    op->pad_top) ||
        !axis_meets(in->shape[1], out->shape[1], op->kernel_width, op->stride_width,
                    op->pad_left)) {
        return EQ_E_OPERATOR;
    }
    const uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    return taps << (width_of(in) - 1u) < MOST_SUM ? EQ_OK : EQ_E_ARITHMETIC;
}

EQ_ONCE eq_status_t eq_check_softmax(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    if (!without_weights(view, o) || o->other != NULL || !same_shape(o->in, o->out) ||
        !in_place_or_apart(o->in, o->out) || o->out->zero_point != INT8_MIN ||
        !in_tables(view, op->multiplier, 1, sizeof(int32_t)) ||
        !in_tables(view, op->shift, 1, sizeof(int8_t))) {
        return EQ_E_OPERATOR;
    }
    const int8_t shift = *table_s8(view, op->shift);
    return o->in->shape[2] <= MOST_SOFTMAX && shift >= 0 &&
                   scale_fits(*table_s32(view, op->multiplier), shift, 0)
               ? EQ_OK
               : EQ_E_ARITHMETIC;
}

EQ_ONCE eq_status_t eq_check_grouped(const eq_view_t *view, const eq_operands_t *o)
{
    const uint32_t groups = o->op->parameter;
    const uint32_t taps = (uint32_t)o->op->kernel_height * o->op->kernel_width;
    if (!window_fits(o) || groups == 0 || o->in->shape[2] % groups != 0 ||
        o->out->shape[2] % groups != 0) {
        return EQ_E_OPERATOR;
    }
    return check_weighted(view, o, (uint64_t)taps * (o->in->shape[2] / groups));
}

/* Sizes are below 2^31 and pads below 2^16, so that their sums fit. */
EQ_ONCE eq_status_t eq_check_pad(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    const uint32_t pads[3] = {op->pad_top, op->pad_left, op->parameter};
    if ((op->weights | op->multiplier | op->shift) != 0 || !scratch_only(view, o) ||
        o->other != NULL || tensors_overlap(o->in, o->out) ||
        o->in->zero_point != o->out->zero_point || o->in->bits != o->out->bits ||
        !in_tables(view, op->bias, 1, sizeof(int32_t))) {
        return EQ_E_OPERATOR;
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (o->in->shape[i] + pads[i] > o->out->shape[i]) {
            return EQ_E_OPERATOR;
        }
    }
    const int32_t value = *table_s32(view, op->bias);
    return value >= least(o->out->bits) && value <= greatest(o->out->bits) ? EQ_OK
                                                                           : EQ_E_ARITHMETIC;
}

EQ_ONCE static int joins(const eq_operands_t *o)
{
    const uint32_t axis = o->op->parameter;
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t size = o->in->shape[i] + (i == axis ? o->other->shape[i] : 0);
        if (size != o->out->shape[i] || (i != axis && size != o->other->shape[i])) {
            return 0;
        }
    }
    return axis < 3;
}

EQ_ONCE eq_status_t eq_check_concat(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    if (!without_weights(view, o) || o->other == NULL || !joins(o) ||
        tensors_overlap(o->in, o->out) || tensors_overlap(o->other, o->out) ||
        !in_tables(view, op->multiplier, 2, sizeof(int32_t)) ||
        !in_tables(view, op->shift, 2, sizeof(int8_t))) {
        return EQ_E_OPERATOR;
    }
    const int32_t *multiplier = table_s32(view, op->multiplier);
    const int8_t *shift = table_s8(view, op->shift);
    return scale_fits(multiplier[0], shift[0], reach(o->in)) &&
                   scale_fits(multiplier[1], shift[1], reach(o->other))
               ? EQ_OK
               : EQ_E_ARITHMETIC;
}

EQ_ONCE eq_status_t eq_check_table(const eq_view_t *view, const eq_operands_t *o)
{
    const eq_operator_t *op = o->op;
    const int fits = without_weights(view, o) && op->multiplier == 0 && o->other == NULL &&
                     same_shape(o->in, o->out) && in_place_or_apart(o->in, o->out) &&
                     in_tables(view, op->shift, 256, sizeof(int8_t));
    return fits ? EQ_OK : EQ_E_OPERATOR;
}

/* Whether the family, or the layout of the weights, gives the operator's parameter a meaning. */
static int has_parameter(const eq_kernel_t *kernel, const eq_operator_t *op)
{
    return kernel->family == EQ_FAMILY_GROUPED || kernel->family == EQ_FAMILY_PAD ||
           kernel->family == EQ_FAMILY_CONCAT || op->layout >= EQ_LAYOUT_PLANES;
}

/* What eq_rows_s8_ref brings to packed activations: the check of its family, with more scratch. */
EQ_ONCE eq_status_t eq_check_rows(const eq_view_t *view, const eq_operands_t *o)
{
    const uint32_t family = o->kernel->family;
    if (!eq_rows_runs(family) || named(view->header, EQ_FAMILY_ROWS) == NULL) {
        return EQ_E_KERNEL;
    }
    const eq_tensor_record_t *other = o->other != NULL ? o->other : o->in;
    const eq_rows_scratch_t rows = eq_rows_scratch(o->op, family, o->in, other, o->out);
    eq_operands_t unpacked = *o;
    unpacked.unpacked = rows.input + rows.output;
    return eq_checks[family](view, &unpacked);
}

/* The check for how the operands are stored, or NULL where there is no code for that. */
static eq_check_t check_of(const eq_operands_t *o)
{
    const int packed =
        eq_is_packed(o->in) || eq_is_packed(o->out) || (o->other != NULL && eq_is_packed(o->other));
    const int wide =
        eq_is_wide(o->in) || eq_is_wide(o->out) || (o->other != NULL && eq_is_wide(o->other));
    if (wide != (o->kernel->activations > 8) || o->kernel->family == EQ_FAMILY_ROWS) {
        return NULL;
    }
    return eq_checks[packed && eq_reads_bytes(o->kernel) ? EQ_FAMILY_ROWS : o->kernel->family];
}

EQ_ONCE static eq_status_t check_operator(const eq_view_t *view, const eq_operator_t *op)
{
    const eq_tensor_record_t *tensors = (const void *)view->data[EQ_SECTION_TENSORS];
    const uint32_t count = view->count[EQ_SECTION_TENSORS];
    const uint32_t id = op->kernel;
    const eq_kernel_t *kernel = eq_kernel_find(id);
    if (kernel == NULL) {
        return EQ_E_KERNEL;
    }
    if ((view->header->kernels[id / 32] >> id % 32 & 1u) == 0 ||
        (op->parameter != 0 && !has_parameter(kernel, op)) || op->input[0] >= count ||
        op->output >= count || (op->input[1] != EQ_NONE && op->input[1] >= count)) {
        return EQ_E_OPERATOR;
    }
    const uint32_t bits = tensors[op->output].bits;
    if (op->clamp_min > op->clamp_max || op->clamp_min < least(bits) ||
        op->clamp_max > greatest(bits)) {
        return EQ_E_ARITHMETIC;
    }
    const eq_operands_t operands = {op,
                                    kernel,
                                    &tensors[op->input[0]],
                                    op->input[1] == EQ_NONE ? NULL : &tensors[op->input[1]],
                                    &tensors[op->output],
                                    0};
    const eq_check_t check = check_of(&operands);
    return check != NULL ? check(view, &operands) : EQ_E_KERNEL;
}

EQ_ONCE static eq_status_t check_operators(const eq_view_t *view)
{
    const eq_operator_t *operators = (const void *)view->data[EQ_SECTION_OPERATORS];
    for (uint32_t i = 0; i < view->count[EQ_SECTION_OPERATORS]; i++) {
        const eq_status_t status = check_operator(view, &operators[i]);
        if (status != EQ_OK) {
            return status;
        }
    }
    return EQ_OK;
}

/// Context ///

static void fill_port(eq_tensor_t *port, const eq_tensor_record_t *record, uint8_t *arena)
{
    port->data = arena + record->offset;
    port->bytes = eq_bytes_of(record);
    for (uint32_t i = 0; i < 3; i++) {
        port->shape[i] = record->shape[i];
    }
    port->rank = record->rank;
    port->bits = record->bits;
    port->zero_point = record->zero_point;
    port->scale = record->scale;
}

/* At least one input and one output, at most EQ_MAX_PORTS of each. */
EQ_ONCE static eq_status_t fill_ports(eq_ctx_t *ctx, const eq_view_t *view, uint8_t *arena)
{
    const eq_tensor_record_t *tensors = (const void *)view->data[EQ_SECTION_TENSORS];
    const eq_port_t *ports = (const void *)view->data[EQ_SECTION_PORTS];
    uint16_t count[2] = {0, 0};
    for (uint32_t i = 0; i < view->count[EQ_SECTION_PORTS]; i++) {
        const uint32_t direction = ports[i].direction;
        if (direction > 1 || count[direction] == EQ_MAX_PORTS ||
            ports[i].tensor >= view->count[EQ_SECTION_TENSORS]) {
            return EQ_E_SECTION;
        }
        fill_port(direction == 0 ? &ctx->input[count[0]] : &ctx->output[count[1]],
                  &tensors[ports[i].tensor], arena);
        count[direction]++;
    }
    ctx->input_count = count[0];
    ctx->output_count = count[1];
    return count[0] != 0 && count[1] != 0 ? EQ_OK : EQ_E_SECTION;
}

static void fill_context(eq_ctx_t *ctx, const eq_view_t *view, uint8_t *arena)
{
    ctx->arena = arena;
    ctx->tensors = view->data[EQ_SECTION_TENSORS];
    ctx->operators = view->data[EQ_SECTION_OPERATORS];
    ctx->variants = view->data[EQ_SECTION_VARIANTS];
    ctx->blocks = view->data[EQ_SECTION_BLOCKS];
    ctx->tables = view->data[EQ_SECTION_TABLES];
    ctx->weights = view->data[EQ_SECTION_WEIGHTS] != NULL ? view->data[EQ_SECTION_WEIGHTS]
                                                          : view->image; /* none are read */
    ctx->block_count = (uint16_t)view->count[EQ_SECTION_BLOCKS];
    ctx->gate = view->data[EQ_SECTION_GATE];
    ctx->variant = 0;
    ctx->block = 0;
    ctx->operator_index = 0;
    ctx->image = view->image;
}

EQ_ONCE static eq_status_t check_contents(eq_ctx_t *ctx, eq_view_t *view, uint8_t *arena)
{
    eq_status_t status = find_sections(view);
    if (status == EQ_OK) {
        status = check_chain(view);
    }
    if (status == EQ_OK) {
        status = check_tensors(view);
    }
    if (status == EQ_OK) {
        status = check_operators(view);
    }
    return status == EQ_OK ? fill_ports(ctx, view, arena) : status;
}

EQ_ONCE eq_status_t eq_init(eq_ctx_t *ctx, const eq_config_t *config)
{
    if (ctx == NULL) {
        return EQ_E_ARGUMENT;
    }
    ctx->image = NULL; /* until all is checked */
    if (config == NULL || config->image == NULL || !aligned(config->image)) {
        return EQ_E_ARGUMENT;
    }
    eq_status_t status = check_header(config);
    if (status == EQ_OK) {
        eq_view_t view = {.image = config->image, .header = config->image};
        status = check_contents(ctx, &view, config->arena);
        if (status == EQ_OK) {
            fill_context(ctx, &view, config->arena);
            if (ctx->gate != NULL) {
                status = eq_ask_gate(ctx, EQ_GATE_CHECK);
                ctx->image = status == EQ_OK ? ctx->image : NULL;
            }
        }
    }
    return status;
}
