"""Kernel, strides, dilations and every way of saying pads, as one Window."""

from __future__ import annotations

from edgeq.frontends.onnx_build import Call
from edgeq.ir import Window


def conv_window(call: Call, kernel: tuple[int, int], size: tuple[int, int]) -> Window:
    """The window of a convolution over `size` (height, width), whose weights have `kernel`."""
    if call.integers("kernel_shape", kernel) != kernel:
        call.refuse(f"kernel_shape {call.integers('kernel_shape', ())}, but weights have {kernel}")
    return _window(call, kernel, size)


def pool_window(call: Call, size: tuple[int, int]) -> Window:
    """The window of a pool over `size` (height, width)."""
    return _window(call, _pair(call, "kernel_shape", (0, 0)), size)


def _window(call: Call, kernel: tuple[int, int], size: tuple[int, int]) -> Window:
    strides = _pair(call, "strides", (1, 1))
    dilations = _pair(call, "dilations", (1, 1))
    if min(*kernel, *strides, *dilations) < 1:
        call.refuse(
            f"kernel {kernel}, strides {strides} and dilations {dilations} must be positive"
        )
    pads = call.integers("pads", (0, 0, 0, 0))
    if len(pads) != 4 or min(pads) < 0:
        call.refuse(f"pads {pads}; edgeq takes four that are not negative")
    begins, ends = [], []
    for axis in (0, 1):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        begin, end = _pads(call, (pads[axis], pads[axis + 2]), size[axis], strides[axis], reach)
        begins.append(begin)
        ends.append(end)
    return Window(kernel, strides, (begins[0], begins[1], ends[0], ends[1]), dilations)


def _pads(
    call: Call, explicit: tuple[int, int], size: int, stride: int, reach: int
) -> tuple[int, int]:
    """Zeros (before, after) along one axis."""
    auto = call.text("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return explicit[0], explicit[1] + _ceil_extra(call, explicit, size, stride, reach)
    if auto == "VALID":
        return 0, 0
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        call.refuse(f"auto_pad {auto!r}; known are NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def _ceil_extra(call: Call, pads: tuple[int, int], size: int, stride: int, reach: int) -> int:
    """What ceil_mode adds at the end; a window that would start in the end pad is dropped."""
    span = size + sum(pads) - reach
    if not call.integer("ceil_mode", 0) or span < 0 or span % stride == 0:
        return 0
    start = (span // stride + 1) * stride
    return stride - span % stride if start < size + pads[0] else 0


def _pair(call: Call, name: str, default: tuple[int, int]) -> tuple[int, int]:
    values = call.integers(name, default)
    if len(values) != 2:
        call.refuse(f"{name} {values}; edgeq has two dimensions, height and width")
    return values[0], values[1]
