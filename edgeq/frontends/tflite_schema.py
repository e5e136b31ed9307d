"""The numbers of the TFLite schema that edgeq reads: fields, types, operators.

A test compares them with the schema that ai-edge-litert ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IDENTIFIER = b"TFL3"

# Fields by name, as the schema numbers them #

MODEL = {"version": 0, "operator_codes": 1, "subgraphs": 2, "buffers": 4}
SUBGRAPH = {"tensors": 0, "inputs": 1, "outputs": 2, "operators": 3}
OPERATOR_CODE = {"deprecated_builtin_code": 0, "custom_code": 1, "version": 2, "builtin_code": 3}
OPERATOR = {
    "opcode_index": 0, "inputs": 1, "outputs": 2, "builtin_options_type": 3, "builtin_options": 4,
}  # fmt: skip
TENSOR = {
    "shape": 0, "type": 1, "buffer": 2, "name": 3, "quantization": 4, "is_variable": 5,
    "sparsity": 6, "shape_signature": 7, "external_buffer": 10,
}  # fmt: skip
BUFFER = {"data": 0, "offset": 1, "size": 2}
QUANTIZATION = {"scale": 2, "zero_point": 3, "details_type": 4, "quantized_dimension": 6}

TYPES = (
    "FLOAT32", "FLOAT16", "INT32", "UINT8", "INT64", "STRING", "BOOL", "INT16", "COMPLEX64",
    "INT8", "FLOAT64", "COMPLEX128", "UINT64", "RESOURCE", "VARIANT", "UINT32", "UINT16", "INT4",
    "BFLOAT16", "INT2", "UINT4",
)  # fmt: skip
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
PADDINGS = ("SAME", "VALID")

CUSTOM = "CUSTOM"
ESCAPE = 127  # an operator code below it stands in the deprecated field alone
OPERATORS = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE",
    "DEQUANTIZE", "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP",
    "L2_NORMALIZATION", "L2_POOL_2D", "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION",
    "LSTM", "MAX_POOL_2D", "MUL", "RELU", "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR",
    "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH", "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL",
    CUSTOM, "EMBEDDING_LOOKUP_SPARSE", "PAD", "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER",
    "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB", "DIV", "SQUEEZE",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP", "TOPK_V2",
    "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM",
    "ARG_MAX", "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL",
    "SELECT", "SLICE", "SIN", "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL",
    "NOT_EQUAL", "LOG", "SUM", "SQRT", "RSQRT", "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT",
    "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT", "LOGICAL_AND", "LOGICAL_NOT",
    "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL", "FLOOR_MOD",
    "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS",
    "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU",
    "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF",
    "WHILE", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2",
    "DENSIFY", "SEGMENT_SUM", "BATCH_MATMUL",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """The table of an operator's options: its number in the union, its fields."""

    name: str
    number: int
    fields: Mapping[str, int]


_WALK = {"padding": 0, "stride_w": 1, "stride_h": 2}
OPTIONS = {
    options.name: options
    for options in (
        Options(
            "Conv2DOptions", 1,
            {**_WALK, "fused_activation_function": 3, "dilation_w_factor": 4,
             "dilation_h_factor": 5},
        ),
        Options(
            "DepthwiseConv2DOptions", 2,
            {**_WALK, "depth_multiplier": 3, "fused_activation_function": 4,
             "dilation_w_factor": 5, "dilation_h_factor": 6},
        ),
        Options(
            "Pool2DOptions", 5,
            {**_WALK, "filter_width": 3, "filter_height": 4, "fused_activation_function": 5},
        ),
        Options("FullyConnectedOptions", 8,
                {"fused_activation_function": 0, "weights_format": 1, "keep_num_dims": 2}),
        Options("SoftmaxOptions", 9, {"beta": 0}),
        Options("ConcatenationOptions", 10, {"axis": 0, "fused_activation_function": 1}),
        Options("AddOptions", 11, {"fused_activation_function": 0}),
        Options("ReshapeOptions", 17, {"new_shape": 0}),
        Options("MulOptions", 21, {"fused_activation_function": 0}),
        Options("ReducerOptions", 27, {"keep_dims": 0}),
        Options("SubOptions", 28, {"fused_activation_function": 0}),
        Options("SqueezeOptions", 30, {"squeeze_dims": 0}),
        Options("StridedSliceOptions", 32, {
            "begin_mask": 0, "end_mask": 1, "ellipsis_mask": 2, "new_axis_mask": 3,
            "shrink_axis_mask": 4,
        }),
        Options("PackOptions", 59, {"axis": 1}),
        Options("LeakyReluOptions", 75, {"alpha": 0}),
    )
}  # fmt: skip
