/* Generated from kernels.toml: the kernels of this firmware. */
#include "eq_kernel.h"

const eq_kernel_t eq_kernels[] = {
    {1, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, eq_conv_s8_ref, NULL},
    {2, EQ_FAMILY_CONV, EQ_SCRATCH_ROW, eq_conv_s8_dsp, NULL},
    {3, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_ROW, eq_depthwise_s8_ref, NULL},
    {4, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_PAIRS, eq_depthwise_s8_dsp, NULL},
    {5, EQ_FAMILY_FC, EQ_SCRATCH_ROW, eq_fc_s8_ref, NULL},
    {6, EQ_FAMILY_FC, EQ_SCRATCH_ROW, eq_fc_s8_dsp, NULL},
    {7, EQ_FAMILY_ADD, EQ_SCRATCH_NONE, eq_add_s8_ref, NULL},
    {8, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, eq_max_pool_s8_ref, NULL},
    {9, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, eq_average_pool_s8_ref, NULL},
    {10, EQ_FAMILY_SOFTMAX, EQ_SCRATCH_NONE, eq_softmax_s8_ref, NULL},
    {20, EQ_FAMILY_GROUPED, EQ_SCRATCH_ROW, eq_grouped_s8_ref, NULL},
    {21, EQ_FAMILY_PAD, EQ_SCRATCH_NONE, eq_pad_s8_ref, NULL},
    {22, EQ_FAMILY_CONCAT, EQ_SCRATCH_NONE, eq_concat_s8_ref, NULL},
    {23, EQ_FAMILY_TABLE, EQ_SCRATCH_NONE, eq_table_s8_ref, NULL},
    {24, EQ_FAMILY_ROWS, EQ_SCRATCH_NONE, eq_rows_s8_ref, NULL},
    {40, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, eq_conv_pairs_s8_dsp, &eq_pairs_rules},
    {41, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, eq_fc_pairs_s8_dsp, &eq_pairs_rules},
    {42, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, eq_conv_fields_s8_dsp, &eq_fields_rules},
    {43, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, eq_fc_fields_s8_dsp, &eq_fields_rules},
    {50, EQ_FAMILY_ADD, EQ_SCRATCH_TABLES, eq_add_table_s8_dsp, NULL},
    {51, EQ_FAMILY_AFFINE, EQ_SCRATCH_NONE, eq_add_affine_s8_dsp, NULL},
    {52, EQ_FAMILY_DEPTHWISE, EQ_SCRATCH_STRIP, eq_depthwise_3x3_s8_dsp, NULL},
    {53, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, eq_max_pool_s8_dsp, NULL},
    {54, EQ_FAMILY_POOL, EQ_SCRATCH_NONE, eq_average_pool_s8_dsp, NULL},
    {60, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, eq_conv_lanes_s4_dsp, &eq_lanes_rules},
    {61, EQ_FAMILY_FC, EQ_SCRATCH_LAYOUT, eq_fc_lanes_s4_dsp, &eq_lanes_rules},
    {62, EQ_FAMILY_CONV, EQ_SCRATCH_LAYOUT, eq_conv_sixes_s2_dsp, &eq_sixes_rules},
};
const uint16_t eq_kernel_count = 27;
