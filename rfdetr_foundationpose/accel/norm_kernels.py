"""Residual sum and layer norm in one pass over memory, FP16 on CUDA, one GPU warp a row; and the mean of the normalized rows,
which are not written for it.

torch has two kernels for these, of which the norm alone takes four times as long as its memory traffic does.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch

wp.set_module_options({"enable_backward": False})

STEP, MAX_CHANNELS = 256, 1024
"""Channels come in multiples of STEP, up to MAX_CHANNELS: 32 lanes read 8 values at a time."""
ROWS = wp.constant(16)
"""A warp averages so many rows."""

# C++: ``widen`` makes a float of the bits of a float16, ``narrow`` the reverse.
HALVES = """
    auto widen = [](unsigned int bits) { wp::half h; h.u = (unsigned short)bits; return wp::half_to_float(h); };
    auto narrow = [](float f) { return (unsigned int)wp::float_to_half(f).u; };
"""

# add_norm_rows: out = layer_norm(x + y), a row of C channels for each warp of 32 lanes. For C = 512, two chunks of 256:
#
#   row  |lane 0: 8 values|lane 1: 8 values|...|lane 31: 8 values|lane 0: 8 values|...|lane 31|
#        `------------------ chunk 0 -----------------------------'`-------- chunk 1 --------'
#
# A thread (lane) holds its 8 values of each chunk, adds x and y, exchanges sums with the other lanes for mean and variance,
# and writes what it holds.
#
# add_norm_sums: x, y (N, L, C) -> out (N, groups, C), sums of the normalized rows, ROWS rows for each warp:
#
#   sequence n  |rows 0..15|rows 16..31|...|   ->   out[n]  |group 0|group 1|...|      each (C,) float32
#
# A thread does as above for each row of its group, and adds up its columns instead of writing them.
_BEGIN = f"""
#if defined(__CUDA_ARCH__){HALVES}    const int chunks = channels >> 8;
    const uint4* pw = reinterpret_cast<const uint4*>(weight.data);
    const uint4* pb = reinterpret_cast<const uint4*>(bias.data);
"""
_NORMALIZE = """
    const size_t start = (size_t)row * (channels >> 3);
    const uint4* px = reinterpret_cast<const uint4*>(x.data) + start;
    const uint4* py = reinterpret_cast<const uint4*>(y.data) + start;
    float v[4][8];
    float sum = 0.0f;
    #pragma unroll
    for (int c = 0; c < 4; ++c) if (c < chunks) {
        const uint4 a4 = px[c * 32 + lane], b4 = py[c * 32 + lane];
        const unsigned int a[4] = {a4.x, a4.y, a4.z, a4.w}, b[4] = {b4.x, b4.y, b4.z, b4.w};
        #pragma unroll
        for (int k = 0; k < 4; ++k) {
            v[c][2 * k] = widen(a[k] & 0xffffu) + widen(b[k] & 0xffffu);
            v[c][2 * k + 1] = widen(a[k] >> 16) + widen(b[k] >> 16);
            sum += v[c][2 * k] + v[c][2 * k + 1];
        }
    }
    #pragma unroll
    for (int o = 16; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    const float mean = sum / channels;
    float squares = 0.0f;
    #pragma unroll
    for (int c = 0; c < 4; ++c) if (c < chunks) {
        #pragma unroll
        for (int k = 0; k < 8; ++k) { const float d = v[c][k] - mean; squares += d * d; }
    }
    #pragma unroll
    for (int o = 16; o > 0; o >>= 1) squares += __shfl_xor_sync(0xffffffffu, squares, o);
    const float scale = rsqrtf(squares / channels + eps);
"""
_ROW = f"""{_BEGIN}{_NORMALIZE}
    uint4* po = reinterpret_cast<uint4*>(out.data) + start;
    #pragma unroll
    for (int c = 0; c < 4; ++c) if (c < chunks) {{
        const uint4 w4 = pw[c * 32 + lane], b4 = pb[c * 32 + lane];
        const unsigned int w[4] = {{w4.x, w4.y, w4.z, w4.w}}, b[4] = {{b4.x, b4.y, b4.z, b4.w}};
        unsigned int r[4];
        #pragma unroll
        for (int k = 0; k < 4; ++k) {{
            const float low = (v[c][2 * k] - mean) * scale * widen(w[k] & 0xffffu) + widen(b[k] & 0xffffu);
            const float high = (v[c][2 * k + 1] - mean) * scale * widen(w[k] >> 16) + widen(b[k] >> 16);
            r[k] = narrow(low) | (narrow(high) << 16);
        }}
        po[c * 32 + lane] = make_uint4(r[0], r[1], r[2], r[3]);
    }}
#endif
"""
_MEAN = f"""{_BEGIN}
    float total[4][8] = {{}};
    for (int i = 0; i < count; ++i) {{
        const int row = first + i;
        {_NORMALIZE}
        #pragma unroll
        for (int c = 0; c < 4; ++c) if (c < chunks) {{
            #pragma unroll
            for (int k = 0; k < 8; ++k) total[c][k] += (v[c][k] - mean) * scale;
        }}
    }}
    float4* po = reinterpret_cast<float4*>(out.data) + (size_t)slot * (channels >> 2);
    #pragma unroll
    for (int c = 0; c < 4; ++c) if (c < chunks) {{
        const uint4 w4 = pw[c * 32 + lane], b4 = pb[c * 32 + lane];
        const unsigned int w[4] = {{w4.x, w4.y, w4.z, w4.w}}, b[4] = {{b4.x, b4.y, b4.z, b4.w}};
        float r[8];
        #pragma unroll
        for (int k = 0; k < 4; ++k) {{
            r[2 * k] = total[c][2 * k] * widen(w[k] & 0xffffu) + count * widen(b[k] & 0xffffu);
            r[2 * k + 1] = total[c][2 * k + 1] * widen(w[k] >> 16) + count * widen(b[k] >> 16);
        }}
        po[(c * 32 + lane) * 2] = make_float4(r[0], r[1], r[2], r[3]);
        po[(c * 32 + lane) * 2 + 1] = make_float4(r[4], r[5], r[6], r[7]);
    }}
#endif
"""


@wp.func_native(_ROW)
def normalize_row(
    x: wp.array(dtype=wp.float16),
    y: wp.array(dtype=wp.float16),
    weight: wp.array(dtype=wp.float16),
    bias: wp.array(dtype=wp.float16),
    eps: float,
    channels: int,
    row: int,
    lane: int,
    out: wp.array(dtype=wp.float16),
): ...


@wp.func_native(_MEAN)
def sum_rows(
    x: wp.array(dtype=wp.float16),
    y: wp.array(dtype=wp.float16),
    weight: wp.array(dtype=wp.float16),
    bias: wp.array(dtype=wp.float16),
    eps: float,
    channels: int,
    first: int,
    count: int,
    slot: int,
    lane: int,
    out: wp.array(dtype=wp.float32),
): ...


@wp.kernel
def add_norm_rows(
    x: wp.array(dtype=wp.float16),
    y: wp.array(dtype=wp.float16),
    weight: wp.array(dtype=wp.float16),
    bias: wp.array(dtype=wp.float16),
    eps: float,
    channels: int,
    out: wp.array(dtype=wp.float16),
):
    """layer_norm(x + y) of every row. Launched over 32 threads (lanes) a row."""
    i = wp.tid()
    normalize_row(x, y, weight, bias, eps, channels, i // 32, i % 32, out)


@wp.kernel
def add_norm_sums(
    x: wp.array(dtype=wp.float16),
    y: wp.array(dtype=wp.float16),
    weight: wp.array(dtype=wp.float16),
    bias: wp.array(dtype=wp.float16),
    eps: float,
    channels: int,
    length: int,
    out: wp.array(dtype=wp.float32),
):
    """Sums of layer_norm(x + y) over groups of ROWS rows; out: one row of sums a group. Launched over sequences, their groups,
    and 32 threads (lanes)."""
    sequence, group, lane = wp.tid()
    within = group * ROWS
    groups = (length + ROWS - 1) // ROWS
    count = wp.min(ROWS, length - within)
    first = sequence * length + within
    sum_rows(x, y, weight, bias, eps, channels, first, count, sequence * groups + group, lane, out)


def fits(channels: int) -> bool:
    """Whether rows of this length can be normalized here."""
    return channels % STEP == 0 and channels <= MAX_CHANNELS


def _check(x: Tensor) -> None:
    if not x.is_cuda or x.dtype != torch.float16:
        raise ValueError(f"one-pass norms are for float16 on CUDA, not {x.dtype} on {x.device}")


def add_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """layer_norm(x + y) over the last dimension of float16 CUDA tensors (..., C), summed in float32; a new tensor.

    Raises ValueError for others.
    """
    _check(x)
    x, y = x.contiguous(), y.contiguous()
    out = torch.empty_like(x)
    channels = x.shape[-1]
    flat = [wp.from_torch(t.view(-1)) for t in (x, y, weight, bias)]
    launch(
        add_norm_rows,
        x.numel() // channels * 32,
        [*flat, eps, channels, wp.from_torch(out.view(-1))],
        device=x.device,
    )
    return out


def add_norm_mean(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The mean of layer_norm(x + y) over the tokens of float16 CUDA tensors (N, L, C), summed in float32: (N, C) float16.

    Raises ValueError for others.
    """
    _check(x)
    x, y = x.contiguous(), y.contiguous()
    n, length, channels = x.shape
    groups = -(-length // ROWS)
    sums = torch.empty((n, groups, channels), dtype=torch.float32, device=x.device)
    flat = [wp.from_torch(t.view(-1)) for t in (x, y, weight, bias)]
    launch(
        add_norm_sums,
        (n, groups, 32),
        [*flat, eps, channels, length, wp.from_torch(sums.view(-1))],
        device=x.device,
    )
    return (sums.sum(1) / length).to(x.dtype)
