"""One function per TFLite operator, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeq.frontends import tflite_schema as schema
from edgeq.frontends import tflite_tables as tables
from edgeq.frontends.tflite_build import IDENTITY, Call, Computed, Known, Value
from edgeq.ir import Array, DType, Function, Node, Op, QParams, Unary, Window

Converter = Callable[[Call], Value]


@dataclass(frozen=True, slots=True)
class Row:
    """How an operator becomes nodes."""

    convert: Converter
    op: Op
    quantized: str  # what becomes of it in a model that is quantised already
    words: tuple[str, ...] = ()  # how TensorFlow calls it in the names of tensors


def check(call: Call) -> Row:
    """The operator's row; says nothing yet about shapes and values.

    Raises:
        ModelError: EQ0315 naming the layer and the operator.
    """
    operation = call.operation
    row = None if operation.custom else CONVERTERS.get(operation.kind)
    if row is None:
        custom = "custom operator" if operation.custom else "operator"
        call.refuse(f"{custom} {operation.kind} is not supported")
    return row


# Layers with weights #


def _pads(call: Call, options: str, window: Window, size: tuple[int, int]) -> Window:
    """The window with the padding that SAME or VALID means for this size."""
    number = call.option("padding", options, form="b")
    if not 0 <= number < len(schema.PADDINGS):
        call.refuse(f"padding {number}; known are {' and '.join(schema.PADDINGS)}")
    if schema.PADDINGS[number] == "VALID":
        return window
    walk = zip(size, window.kernel, window.strides, window.dilations, strict=True)
    totals = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in walk]
    before = [total // 2 for total in totals]
    after = [total - half for total, half in zip(totals, before, strict=True)]
    return replace(window, pads=(before[0], before[1], after[0], after[1]))


def _window(call: Call, options: str, kernel: tuple[int, int], x: Computed) -> Window:
    dilated = "dilation_h_factor" in schema.OPTIONS[options].fields
    strides = (call.option("stride_h", options), call.option("stride_w", options))
    dilations = (1, 1)
    if dilated:
        dilations = (
            call.option("dilation_h_factor", options, 1),
            call.option("dilation_w_factor", options, 1),
        )
    if min(*kernel, *strides, *dilations) < 1 or max(*kernel, *strides, *dilations) > 0xFFFF:
        call.refuse(
            f"kernel {kernel}, strides {strides} and dilations {dilations} must be 1 to 65535"
        )
    window = Window(kernel, strides, dilations=dilations)
    return _pads(call, options, window, (x.shape[1], x.shape[2]))


def _conv(call: Call) -> Computed:
    x, weights = call.of_rank(4), call.reals(1)
    if weights is None or weights.ndim != 4:
        call.limits(Op.CONV_2D, "weights are not of rank 4")
    channels, depth, filters = x.shape[3], weights.shape[3], weights.shape[0]
    if channels % depth or filters % (channels // depth):
        call.refuse(f"weights {weights.shape} for an input of {channels} channels")
    op = Op.CONV_2D if channels == depth else Op.GROUPED_CONV_2D
    options = "Conv2DOptions"
    window = _window(call, options, (weights.shape[1], weights.shape[2]), x)
    return _layer(call, op, x, weights, options, 0, lambda array: array, window)


def _depthwise(call: Call) -> Computed:
    x, weights = call.of_rank(4), call.reals(1)
    if weights is None or weights.ndim != 4 or weights.shape[0] != 1:
        call.limits(Op.DEPTHWISE_CONV_2D, "weights are not of shape (1, height, width, channels)")
    if weights.shape[3] % x.shape[3]:
        call.refuse(f"weights {weights.shape} for an input of {x.shape[3]} channels")
    options = "DepthwiseConv2DOptions"
    window = _window(call, options, (weights.shape[1], weights.shape[2]), x)
    return _layer(
        call, Op.DEPTHWISE_CONV_2D, x, weights, options, 3,
        lambda array: array[0].transpose(2, 0, 1), window,
    )  # fmt: skip


def _fully_connected(call: Call) -> Computed:
    x, weights = call.computed(), call.reals(1)
    options = "FullyConnectedOptions"
    if weights is None or weights.ndim != 2 or call.option("weights_format", options, form="b"):
        call.limits(Op.FULLY_CONNECTED, "weights are shuffled, or not of rank 2")
    if math.prod(x.shape) != weights.shape[1]:
        call.refuse(f"{weights.shape[1]} weights per output for an input of shape {x.shape}")
    x = call.regrouped(x, (1, weights.shape[1]))
    y = _layer(call, Op.FULLY_CONNECTED, x, weights, options, 0, lambda array: array, None)
    kept = call.option("keep_num_dims", options, form="b")
    return replace(y, shape=(*call.computed().shape[:-1], weights.shape[0])) if kept else y


def _layer(
    call: Call,
    op: Op,
    x: Computed,
    weights: Array,
    options: str,
    axis: int,
    laid_out: Callable[[Array], Array],
    window: Window | None,
) -> Computed:
    """A layer whose filters lie along the file's `axis` of `weights`."""
    clamp = call.clamp(call.activation_function(options))
    filters = weights.shape[axis]
    reals = laid_out(weights)
    if call.qparams is None:
        bias = call.reals(2)
        zeros = np.zeros(filters, np.float32)
        names = (
            call.constant("weight", reals, None),
            call.constant("bias", _vector(call, zeros if bias is None else bias, filters), None),
        )
        return call.emit(op, x, *names, window=window, clamp=clamp)
    assert x.qparams is not None  # as `computed` saw
    q = call.weights(1, axis, filters)
    integers = _integer_bias(call, filters)
    scale = x.qparams.scale[0] * np.asarray(q.scale)
    value = call.given(1)
    assert isinstance(value, Known)  # as `weights` saw
    names = (
        call.constant("weight", reals, (laid_out(value.info.values()), DType.S8, q)),
        call.constant("bias", integers * scale, (integers, DType.S32, None)),
    )
    return call.emit(op, x, *names, window=window, clamp=clamp)


def _vector(call: Call, values: Array, filters: int) -> Array:
    if values.size != filters:
        call.refuse(f"a bias of shape {values.shape} for {filters} filters")
    return values.reshape(filters)


def _integer_bias(call: Call, filters: int) -> Array:
    value = call.known(2)
    if value is None:
        return np.zeros(filters, np.int64)
    info = value.info
    if info.kind != "INT32" or info.stored is None:
        call.refuse(f"a bias of {info.kind}; beside int8 activations it is INT32")
    if info.scales is not None and info.scales.zero_point.any():
        call.refuse(f"{info.name}: a bias has zero point 0")
    return _vector(call, info.values().astype(np.int64), filters)


# Pools #


def _pool(op: Op) -> Converter:
    def convert(call: Call) -> Computed:
        options = "Pool2DOptions"
        x = call.of_rank(4)
        kernel = (call.option("filter_height", options), call.option("filter_width", options))
        window = _window(call, options, kernel, x)
        call.same_scale(x)
        return call.emit(op, x, window=window, clamp=call.clamp(call.activation_function(options)))

    return convert


def _mean(call: Call) -> Computed:
    x, axes = call.of_rank(4), call.integers(1)
    if axes is None or sorted(a % 4 for a in axes if -4 <= a < 4) != [1, 2] or len(axes) != 2:
        call.limits(Op.AVERAGE_POOL, f"axes {axes} of shape {x.shape}")
    window = Window((x.shape[1], x.shape[2]))
    if x.qparams is None:
        y = call.emit(Op.AVERAGE_POOL, x, window=window)
    else:
        y = _quantized_mean(call, x, window)
    keeps = bool(call.option("keep_dims", "ReducerOptions", form="b"))
    return y if keeps else replace(y, shape=(1, x.shape[3]))


def _quantized_mean(call: Call, x: Computed, window: Window) -> Computed:
    """A mean that changes the scale: a depthwise convolution of ones.

    TFLM sums, and multiplies by the ratio of scales and 1/n at once; a pool would round to the
    input's scale first.
    """
    height, width = window.kernel
    shape = (x.shape[3], height, width)
    taps = height * width
    q = QParams((1 / taps,), 0, 2)
    ones, zeros = np.ones(shape, np.int8), np.zeros(shape[0], np.int32)
    names = (
        call.constant("weight", ones / taps, (ones, DType.S8, q)),
        call.constant("bias", zeros, (zeros, DType.S32, None)),
    )
    try:
        multiplier, shift = tables.mean_ratio(_q(x), call.quantized(), taps)
    except ValueError as error:
        call.refuse(str(error))
    call.keep("multiplier", np.full(shape[0], multiplier), DType.S32)
    call.keep("shift", np.full(shape[0], shift), DType.S8)
    return call.emit(Op.DEPTHWISE_CONV_2D, x, *names, window=window)


# Sums and products #


def _add(call: Call) -> Computed:
    values = call.given(0), call.given(1)
    name = call.activation_function("AddOptions")
    if all(isinstance(value, Computed) for value in values):
        x, other = _pair(call, Op.ADD)
        return call.emit(Op.ADD, x, other.tensor, clamp=call.clamp(name))
    if call.qparams is None:
        x, reals, _ = _with_reals(call)
        return _affine(call, x, 1.0, reals, name)
    x, real, integer, q, _ = _with_integer(call)
    return _shifted(
        call, x, 1.0, real, name,
        lambda: tables.total(_q(x), call.quantized(), call.integer_bounds(name), integer, q),
    )  # fmt: skip


def _subtract(call: Call) -> Computed:
    name = call.activation_function("SubOptions")
    if all(isinstance(value, Computed) for value in (call.given(0), call.given(1))):
        call.limits(Op.BATCH_NORM, "subtracts one computed tensor from another")
    if call.qparams is None:
        x, reals, index = _with_reals(call)
        return _affine(call, x, *((1.0, -reals) if index == 1 else (-1.0, reals)), name)
    x, real, integer, q, index = _with_integer(call)
    sign = 1 if index == 1 else -1
    bounds = call.integer_bounds(name)
    return _shifted(
        call, x, float(sign), -sign * real, name,
        lambda: tables.difference(_q(x), call.quantized(), bounds, integer, q, sign),
    )  # fmt: skip


def _multiply(call: Call) -> Computed:
    name = call.activation_function("MulOptions")
    if all(isinstance(value, Computed) for value in (call.given(0), call.given(1))):
        if call.qparams is not None:
            call.limits(Op.MULTIPLY, "multiplies two int8 tensors")
        x, other = _pair(call, Op.MULTIPLY)
        return _clipped(call, name, lambda part: part.emit(Op.MULTIPLY, x, other.tensor))
    if call.qparams is None:
        x, reals, _ = _with_reals(call)
        return _affine(call, x, reals, 0.0, name)
    x, real, integer, q, _ = _with_integer(call)
    bounds = call.integer_bounds(name)
    return _shifted(
        call, x, real, 0.0, name,
        lambda: tables.product(_q(x), call.quantized(), bounds, integer, q),
    )  # fmt: skip


def _pair(call: Call, op: Op) -> tuple[Computed, Computed]:
    x, other = call.computed(0), call.computed(1)
    if x.shape != other.shape:
        call.limits(op, f"shapes {x.shape} and {other.shape} differ")
    return call.plain(x), call.plain(other)


def _with_reals(call: Call) -> tuple[Computed, Array, int]:
    """The computed input, the constant one for each of its channels, and that one's index."""
    index = 0 if isinstance(call.given(0), Known) else 1
    x, values = call.plain(call.computed(1 - index)), call.reals(index)
    if (
        values is None
        or values.size not in (1, x.shape[-1])
        or (values.size > 1 and values.shape[-1] != values.size)
    ):
        shape = None if values is None else values.shape
        call.refuse(
            f"a constant of shape {shape} is neither one number nor one for each of "
            f"{x.shape[-1]} channels"
        )
    return x, values.reshape(-1), index


def _with_integer(call: Call) -> tuple[Computed, float, int, QParams, int]:
    """The computed input; the constant one, a number: its real, integer, parameters, index."""
    index = 0 if isinstance(call.given(0), Known) else 1
    x, value = call.computed(1 - index), call.known(index)
    if value is None or value.info.kind != "INT8" or value.info.elements != 1:
        call.refuse("an int8 tensor goes with a constant that is one int8 number")
    scales = value.info.scales
    if scales is None or len(scales.scale) != 1 or value.info.stored is None:
        call.refuse(f"{value.info.name} is INT8 without one scale")
    q = QParams((float(scales.scale[0]),), int(scales.zero_point[0]))
    integer = int(value.info.values().reshape(-1)[0])
    return x, float(q.dequantize(np.array(integer))), integer, q, index


def _q(x: Computed) -> QParams:
    assert x.qparams is not None  # as `computed` saw
    return x.qparams


def _shifted(
    call: Call, x: Computed, factor: float, offset: float, name: str, values: Callable[[], Array]
) -> Computed:
    """The value of factor · x + offset of a quantised model: a table of the integers `values`."""
    function = Function(Unary.LINEAR, factor, offset)
    return call.table(x, function, values, clamp=call.clamp(name))


def _affine(
    call: Call, x: Computed, factor: Array | float, offset: Array | float, name: str
) -> Computed:
    """The value of factor · x + offset of a float model: a batch norm of mean 0 and variance 1."""
    constants = {"factor": factor, "offset": offset, "mean": 0.0, "variance": 1.0}
    names = [
        call.constant(key, np.broadcast_to(np.asarray(value, np.float32), (x.shape[-1],)), None)
        for key, value in constants.items()
    ]
    return _clipped(call, name, lambda part: part.emit(Op.BATCH_NORM, x, *names))


def _clipped(call: Call, name: str, emit: Callable[[Call], Computed]) -> Computed:
    """What `emit` gives, and a clip behind it where the operator fuses one."""
    clamp = call.clamp(name)
    if clamp is None:
        return emit(call)
    inner = call.name_of("unclamped")
    return call.emit(Op.CLIP, emit(replace(call, name=inner, output_name=inner)), clamp=clamp)


# Of one value #


def _relu(call: Call) -> Computed:
    x, name = call.computed(), call.operation.kind
    if x.qparams is None:
        return call.emit(Op.CLIP, x, clamp=call.clamp(name))
    bounds = call.integer_bounds(name)
    values = lambda: tables.requantized(_q(x), call.quantized(), bounds)  # noqa: E731
    if name == "RELU6":  # TFLM clamps integers and does not look at the output's scale
        call.same_scale(x)
    return call.table(x, IDENTITY, values, clamp=call.clamp(name))


def _logistic(call: Call) -> Computed:
    x = call.computed()
    call.fixed_scale(1 / 256, -128)
    return call.table(x, Function(Unary.SIGMOID), lambda: tables.logistic(_q(x)))


def _tanh(call: Call) -> Computed:
    x = call.computed()
    call.fixed_scale(1 / 128, 0)
    return call.table(x, Function(Unary.TANH), lambda: tables.tanh(_q(x)))


def _hard_swish(call: Call) -> Computed:
    x = call.computed()
    function = Function(Unary.HARD_SWISH, 1 / 6, 0.5)
    return call.table(x, function, lambda: tables.hard_swish(_q(x), call.quantized()))


def _leaky_relu(call: Call) -> Computed:
    x = call.computed()
    alpha = call.real_option("alpha", "LeakyReluOptions", 0.0)
    values = lambda: tables.leaky_relu(_q(x), call.quantized(), alpha)  # noqa: E731
    return call.table(x, Function(Unary.LEAKY_RELU, alpha), values)


def _softmax(call: Call) -> Computed:
    x = call.computed()
    if len(x.shape) != 2:
        call.limits(Op.SOFTMAX, f"an input of shape {x.shape}")
    beta = call.real_option("beta", "SoftmaxOptions", 0.0)
    if beta <= 0:
        call.refuse(f"beta {beta:g}; it must be positive")
    call.fixed_scale(1 / 256, -128)
    return call.emit(Op.SOFTMAX, call.regrouped(x, x.shape), beta=beta)


def _quantize(call: Call) -> Computed:
    x = call.given(0)
    if isinstance(x, Computed) and x.qparams is None:
        call.refuse("quantises a tensor that the model computes in float; edgeq takes float or "
                    "int8 models, with QUANTIZE at inputs only")  # fmt: skip
    x, y = call.computed(), call.quantized()
    if x.qparams == y:
        return x
    values = lambda: tables.requantized(_q(x), y, (y.qmin, y.qmax))  # noqa: E731
    return call.table(x, IDENTITY, values)


def _dequantize(call: Call) -> Value:
    value = call.given(0)
    if not isinstance(value, Known):
        call.refuse(
            "dequantises a tensor that the model computes with; edgeq takes float or int8 models, "
            "with DEQUANTIZE at outputs only"
        )
    return Known(value.info, call.reals(0))


# Shapes #


def _reshape(call: Call) -> Computed:
    x = call.computed()
    sizes = call.integers(1) if call.given(1) is not None else None
    if sizes is None:
        sizes = call.integers_option("new_shape", "ReshapeOptions") or call.output.shape
    rest = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or rest < 1 or math.prod(x.shape) % rest:
        call.refuse(f"cannot make shape {sizes} of {x.shape}")
    return _reshaped(call, tuple(math.prod(x.shape) // rest if s == -1 else s for s in sizes))


def _squeeze(call: Call) -> Computed:
    x = call.computed()
    rank = len(x.shape)
    given = call.integers_option("squeeze_dims", "SqueezeOptions")
    axes = given or tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    gone = {axis % rank for axis in axes if -rank <= axis < rank and x.shape[axis] == 1}
    if len(gone) != len(axes):
        call.refuse(f"axes {axes} of shape {x.shape} are not all of size 1")
    return _reshaped(call, tuple(size for axis, size in enumerate(x.shape) if axis not in gone))


def _expand_dims(call: Call) -> Computed:
    x, axes = call.computed(), call.integers(1)
    rank = len(x.shape) + 1
    if axes is None or len(axes) != 1 or not -rank <= axes[0] < rank:
        call.refuse(f"axis {axes} for a result of rank {rank}")
    axis = axes[0] % rank
    return _reshaped(call, (*x.shape[:axis], 1, *x.shape[axis:]))


def _reshaped(call: Call, shape: tuple[int, ...]) -> Computed:
    """The input with another shape; where the graph has no such rank, only by name."""
    x = call.computed()
    if math.prod(shape) != math.prod(x.shape):
        call.refuse(f"cannot make shape {shape} of {x.shape}")
    call.same_scale(x)
    if len(shape) not in (2, 4) or shape[0] != 1:
        return replace(x, shape=shape)
    return _as_node(call, x, shape)


def _as_node(call: Call, x: Computed, shape: tuple[int, ...]) -> Computed:
    tensor = call.state.activation(call.output_name, shape, x.qparams)
    call.state.builder.nodes.append(Node(call.name, Op.RESHAPE, (x.tensor,), tensor))
    return Computed(tensor, shape, x.qparams)


def _shape(call: Call) -> Known:
    """SHAPE, which exporters compute reshapes from: shapes are known here."""
    x = call.given(0)
    if not isinstance(x, Computed):
        call.refuse("takes a tensor that is computed")
    return Known(call.output, np.array(x.shape))


def _strided_slice(call: Call) -> Known:
    options = "StridedSliceOptions"
    masks = [call.option(f"{name}_mask", options) for name in ("begin", "end", "shrink_axis")]
    others = [call.option(f"{name}_mask", options) for name in ("ellipsis", "new_axis")]
    if isinstance(call.given(0), Computed):
        call.refuse("slices a tensor that the model computes with; edgeq slices shapes alone")
    values, begin, end, stride = (call.integers(index) or () for index in range(4))
    if not values or {len(begin), len(end), len(stride)} != {1} or any(others) or not stride[0]:
        call.refuse("slices something else than a list of integers")
    ends = zip(masks, (begin, end), strict=False)
    first, last = (None if mask & 1 else at[0] for mask, at in ends)
    if masks[2] & 1:
        last = None if begin[0] == -1 else begin[0] + 1
    return Known(call.output, np.array(values)[first : last : stride[0]])


def _pack(call: Call) -> Known:
    if call.option("axis", "PackOptions") or any(isinstance(v, Computed) for v in call.inputs):
        call.refuse("stacks tensors; edgeq stacks the sizes of a shape alone")
    parts = [call.integers(index) or () for index in range(len(call.inputs))]
    return Known(call.output, np.array([number for part in parts for number in part]))


def _pad(call: Call) -> Computed:
    x, sizes = call.of_rank(4), call.known(1)
    if sizes is None or sizes.info.kind not in ("INT32", "INT64") or sizes.info.shape != (4, 2):
        call.limits(Op.PAD, "the paddings are no constant of shape (4, 2)")
    amounts = call.integers(1)
    assert amounts is not None  # as it was given
    if min(amounts) < 0 or amounts[:2] != (0, 0) or max(amounts) > 0xFFFF:
        call.limits(Op.PAD, f"paddings {amounts}")
    call.same_scale(x)
    before, after = amounts[2::2], amounts[3::2]
    return call.emit(Op.PAD, x, _fill(call), pads=(*before, *after))


def _fill(call: Call) -> str:
    """The constant that a pad fills with: 0, or PADV2's third input."""
    y, value = call.qparams, call.known(2)
    if y is None:
        reals = call.reals(2)
        real = np.zeros(1, np.float32) if reals is None else reals.reshape(-1)
        if real.size != 1:
            call.refuse(f"pads with {real.size} values; one is taken")
        return call.constant("value", real, None)
    integer = y.zero_point
    if value is not None:
        scales = value.info.scales
        same = scales is not None and (float(scales.scale[0]), int(scales.zero_point[0])) == (
            y.scale[0], y.zero_point,
        )  # fmt: skip
        if value.info.kind != "INT8" or value.info.elements != 1 or not same:
            call.refuse("pads with a value that is no int8 number of the output's scale")
        integer = int(value.info.values().reshape(-1)[0])
    return call.constant(
        "value", y.dequantize(np.array([integer])), (np.array([integer]), DType.S32, None)
    )


def _concat(call: Call) -> Computed:
    options = "ConcatenationOptions"
    if call.activation_function(options) != "NONE":
        call.refuse("fused activation; edgeq joins without")
    values = [call.computed(index) for index in range(len(call.inputs))]
    if not values:
        call.refuse("joins nothing")
    first = values[0]
    axis = call.option("axis", options)
    axis += len(first.shape) if axis < 0 else 0
    if len(first.shape) not in (2, 4) or not 1 <= axis < len(first.shape):
        call.limits(Op.CONCAT, f"axis {axis} of shape {first.shape}")
    for value in values:
        call.same_scale(value)  # TFLM copies integers as they are
        rests = [v.shape[:axis] + v.shape[axis + 1 :] for v in (first, value)]
        if len(value.shape) != len(first.shape) or rests[0] != rests[1]:
            call.limits(Op.CONCAT, f"joins shapes {first.shape} and {value.shape}")
    joined = call.regrouped(first, first.shape)
    rest = [call.regrouped(value, value.shape) for value in values[1:]]
    for value in rest[:-1]:
        name = call.name_of("part")
        part = replace(call, name=name, output_name=name)
        joined = part.emit(Op.CONCAT, joined, value.tensor, axis=axis)
    return call.emit(Op.CONCAT, joined, rest[-1].tensor, axis=axis) if rest else joined


CONVERTERS: Mapping[str, Row] = {
    "ADD": Row(_add, Op.ADD, "two tensors; a number makes it a table", ("add", "AddV2", "Add")),
    "AVERAGE_POOL_2D": Row(
        _pool(Op.AVERAGE_POOL), Op.AVERAGE_POOL, "input and output of one scale", ("AvgPool",)
    ),
    "CONCATENATION": Row(
        _concat, Op.CONCAT, "tensors of one scale, without fused activation", ("concat",)
    ),
    "CONV_2D": Row(
        _conv,
        Op.CONV_2D,
        "any; fewer channels in the weights than in the input make groups",
        ("Conv2D", "convolution"),
    ),
    "DEPTHWISE_CONV_2D": Row(
        _depthwise, Op.DEPTHWISE_CONV_2D, "any depth multiplier", ("depthwise",)
    ),
    "DEQUANTIZE": Row(_dequantize, Op.IDENTITY, "at an output, or of a constant"),
    "EXPAND_DIMS": Row(_expand_dims, Op.RESHAPE, "as RESHAPE", ("ExpandDims",)),
    "FULLY_CONNECTED": Row(
        _fully_connected, Op.FULLY_CONNECTED, "constant weights that are not shuffled", ("MatMul",)
    ),
    "HARD_SWISH": Row(_hard_swish, Op.TABLE, "a table", ("HardSwish",)),
    "LEAKY_RELU": Row(_leaky_relu, Op.TABLE, "a table; alpha is not negative", ("LeakyRelu",)),
    "LOGISTIC": Row(
        _logistic, Op.TABLE, "a table; its output has scale 1/256 and zero point −128", ("Sigmoid",)
    ),
    "MAX_POOL_2D": Row(
        _pool(Op.MAX_POOL), Op.MAX_POOL, "input and output of one scale", ("MaxPool",)
    ),
    "MEAN": Row(
        _mean,
        Op.AVERAGE_POOL,
        "over height and width: a depthwise convolution of ones, 2 bits each",
        ("Mean",),
    ),
    "MUL": Row(_multiply, Op.MULTIPLY, "by a number: a table", ("mul", "Mul")),
    "PACK": Row(_pack, Op.RESHAPE, "of the sizes of a shape"),
    "PAD": Row(_pad, Op.PAD, "on height, width and channels", ("Pad",)),
    "PADV2": Row(_pad, Op.PAD, "likewise, with any int8 number of the output's scale", ("PadV2",)),
    "QUANTIZE": Row(_quantize, Op.TABLE, "at an input; elsewhere from int8 to int8, a table"),
    "RELU": Row(_relu, Op.CLIP, "a table", ("Relu",)),
    "RELU6": Row(_relu, Op.CLIP, "a table; input and output of one scale", ("Relu6",)),
    "RELU_N1_TO_1": Row(_relu, Op.CLIP, "a table"),
    "RESHAPE": Row(_reshape, Op.RESHAPE, "to rank 2 or 4, through any other", ("Reshape",)),
    "SHAPE": Row(_shape, Op.RESHAPE, "known when the model is read"),
    "SOFTMAX": Row(
        _softmax,
        Op.SOFTMAX,
        "of rank 2; any positive beta; its output has scale 1/256 and zero point −128",
        ("Softmax",),
    ),
    "SQUEEZE": Row(_squeeze, Op.RESHAPE, "as RESHAPE", ("Squeeze",)),
    "STRIDED_SLICE": Row(_strided_slice, Op.RESHAPE, "of a shape"),
    "SUB": Row(
        _subtract, Op.BATCH_NORM, "a number and a tensor, either first: a table", ("sub", "Sub")
    ),
    "TANH": Row(_tanh, Op.TABLE, "a table; its output has scale 1/128 and zero point 0", ("Tanh",)),
}
