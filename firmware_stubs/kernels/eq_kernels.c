/* Generated from kernels.toml: the kernels of this firmware. */
#include "eq_kernel.h"

const eq_kernel_t eq_kernels[] = {
    {1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, eq_conv_s8_ref},
    {2, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 8, eq_conv_s8_dsp},
    {3, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, 8, eq_depthwise_s8_ref},
    {4, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_PAIRS, 8, eq_depthwise_s8_dsp},
    {5, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, eq_fc_s8_ref},
    {6, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 8, eq_fc_s8_dsp},
    {7, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, 8, eq_add_s8_ref},
    {8, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, eq_max_pool_s8_ref},
    {9, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 8, eq_average_pool_s8_ref},
    {10, EQ_FAMILY_SOFTMAX, EQ_SCRATCH_NONE, 8, eq_softmax_s8_ref},
    {20, EQ_FAMILY_GROUPED, EQ_SCRATCH_ROW, 8, eq_grouped_s8_ref},
    {21, EQ_FAMILY_PAD, EQ_SCRATCH_NONE, 8, eq_pad_s8_ref},
    {22, EQ_FAMILY_CONCAT, EQ_SCRATCH_NONE, 8, eq_concat_s8_ref},
    {23, EQ_FAMILY_TABLE, EQ_SCRATCH_NONE, 8, eq_table_s8_ref},
    {24, EQ_FAMILY_ROWS, EQ_SCRATCH_NONE, 8, eq_rows_s8_ref},
    {40, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, 16, eq_conv_s16_ref},
    {41, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, 16, eq_depthwise_s16_ref},
    {42, EQ_FAMILY_FC, EQ_SCRATCH_ROW, 16, eq_fc_s16_ref},
    {43, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, 16, eq_add_s16_ref},
    {44, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 16, eq_max_pool_s16_ref},
    {45, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, 16, eq_average_pool_s16_ref},
    {46, EQ_FAMILY_GROUPED, EQ_SCRATCH_ROW, 16, eq_grouped_s16_ref},
    {47, EQ_FAMILY_PAD, EQ_SCRATCH_NONE, 16, eq_pad_s16_ref},
    {48, EQ_FAMILY_CONCAT, EQ_SCRATCH_NONE, 16, eq_concat_s16_ref},
};
const uint16_t eq_kernel_count = 24;
