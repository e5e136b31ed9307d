/*
 * eq_check.h - what eq_init asks of the operators of each family.
 *
 * eq_kernels.c names the checks of the families that it has kernels of: of the others the linker
 * takes nothing. Private to eq_check.c and that list.
 */
#ifndef EQ_CHECK_H
#define EQ_CHECK_H

#include "edgeq.h"
#include "eq_kernel.h"

#define EQ_SECTION_KINDS 9u /* one more than the greatest kind */

/* The image as it is being checked. */
typedef struct {
    const uint8_t *image;
    const eq_header_t *header;
    const uint8_t *data[EQ_SECTION_KINDS];
    uint32_t bytes[EQ_SECTION_KINDS]; /* 0 where a section is missing */
    uint32_t count[EQ_SECTION_KINDS]; /* records */
} eq_view_t;

/* An operator with its tensors, and what of its scratch is for unpacked activations. */
typedef struct {
    const eq_operator_t *op;
    const eq_kernel_t *kernel;
    const eq_tensor_record_t *in;
    const eq_tensor_record_t *other; /* the second input, or NULL */
    const eq_tensor_record_t *out;
    uint64_t unpacked;
} eq_operands_t;

typedef eq_status_t (*eq_check_t)(const eq_view_t *view, const eq_operands_t *o);

/* By eq_family_t; NULL for those that no kernel of this firmware is of. */
extern const eq_check_t eq_checks[EQ_FAMILY_COUNT];

/* eq_tensor_bytes, out of line. */
uint32_t eq_bytes_of(const eq_tensor_record_t *tensor);

eq_status_t eq_check_conv(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_depthwise(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_fc(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_add(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_affine(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_pool(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_softmax(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_grouped(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_pad(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_concat(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_table(const eq_view_t *view, const eq_operands_t *o);
eq_status_t eq_check_rows(const eq_view_t *view, const eq_operands_t *o);

#endif
