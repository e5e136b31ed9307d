/* Generated from kernels.toml: the kernels of this firmware. */
#include "eq_kernel.h"

const eq_kernel_t eq_kernels[] = {
    {1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, EQ_ORDER_ROWS, eq_conv_s8_ref},
    {2, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, EQ_ORDER_ROWS, eq_conv_s8_dsp},
    {3, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, EQ_ORDER_CHANNELS, eq_depthwise_s8_ref},
    {4, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_PAIRS, EQ_ORDER_CHANNELS, eq_depthwise_s8_dsp},
    {5, EQ_FAMILY_FC, EQ_SCRATCH_ROW, EQ_ORDER_NONE, eq_fc_s8_ref},
    {6, EQ_FAMILY_FC, EQ_SCRATCH_ROW, EQ_ORDER_NONE, eq_fc_s8_dsp},
    {7, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_add_s8_ref},
    {8, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, EQ_ORDER_VALUES, eq_max_pool_s8_ref},
    {9, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, EQ_ORDER_VALUES, eq_average_pool_s8_ref},
    {10, EQ_FAMILY_SOFTMAX, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_softmax_s8_ref},
    {20, EQ_FAMILY_GROUPED, EQ_SCRATCH_ROW, EQ_ORDER_ROWS, eq_grouped_s8_ref},
    {21, EQ_FAMILY_PAD, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_pad_s8_ref},
    {22, EQ_FAMILY_CONCAT, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_concat_s8_ref},
    {23, EQ_FAMILY_TABLE, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_table_s8_ref},
    {24, EQ_FAMILY_ROWS, EQ_SCRATCH_NONE, EQ_ORDER_NONE, eq_rows_s8_ref},
};
const uint16_t eq_kernel_count = 15;
