"""Graph rewrites that make a trained network cheaper without changing what it computes."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .network import JoinCrops, JoinFeatures, PairNetwork, PositionEmbedding

Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose every ``BatchNorm2d`` that directly follows a ``Conv2d`` is folded into that convolution.

    Execution order decides, not the order of registration: every part that can be traced symbolically is, and a pair
    is folded only when the convolution's output goes nowhere else. Raises ValueError for a module in training mode,
    whose normalization depends on the batch.
    """
    if module.training:
        raise ValueError("fold_batch_norm needs a module in eval mode: call module.eval() first")
    folded = copy.deepcopy(module)
    for traced in _traced_parts(folded).values():
        for conv_name, norm_name in _conv_norm_pairs(traced):
            conv, norm = traced.get_submodule(conv_name), traced.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight, fused.bias
            _replace(folded, norm, nn.Identity())
    return folded.requires_grad_(False)


def _conv_norm_pairs(traced: fx.GraphModule) -> Iterator[tuple[str, str]]:
    modules = dict(traced.named_modules())
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules.get(str(node.target)), nn.BatchNorm2d):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        used_once = calls.count(source.target) == calls.count(node.target) == 1
        if isinstance(modules.get(str(source.target)), nn.Conv2d) and used_once:
            yield str(source.target), str(node.target)


def set_submodule(root: nn.Module, name: str, new: nn.Module) -> None:
    """``root.a.b = new`` for the name "a.b" (torch has this from 2.5 on)."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, new)


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for name, module in list(root.named_modules()):
        if module is old:
            set_submodule(root, name, new)


class _Tracer(fx.Tracer):
    """Leaves everything that holds no convolution (attention, layer norm, ...) as one opaque call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if any(isinstance(child, nn.Conv2d) for child in m.modules() if child is not m):
            return False
        return super().is_leaf_module(m, module_qualified_name) or isinstance(m, nn.TransformerEncoderLayer)


def _traced_parts(module: nn.Module, prefix: str = "") -> dict[str, fx.GraphModule]:
    """Symbolic traces of the largest parts with convolutions that have no shape-dependent branches, by name."""
    if not any(isinstance(m, nn.Conv2d) for m in module.modules()):
        return {}
    try:
        return {prefix: fx.GraphModule(module, _Tracer().trace(module))}
    except (fx.proxy.TraceError, TypeError, ValueError):
        parts: dict[str, fx.GraphModule] = {}
        for name, child in module.named_children():
            parts |= _traced_parts(child, f"{prefix}.{name}" if prefix else name)
        return parts


class ConvReLU(nn.Module):
    """conv + bias [+ residual] + ReLU; one cuDNN kernel on CUDA, the same arithmetic in three steps elsewhere."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"cannot fuse a convolution with padding {conv.padding!r} ({conv.padding_mode})")
        self.weight = conv.weight
        self.bias = conv.bias if conv.bias is not None else nn.Parameter(conv.weight.new_zeros(conv.out_channels))
        self.stride, self.padding = list(conv.stride), list(conv.padding)
        self.dilation, self.groups = list(conv.dilation), conv.groups

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        if x.is_cuda:
            if residual is None:
                return torch.cudnn_convolution_relu(x, self.weight, self.bias, *geometry)
            return torch.cudnn_convolution_add_relu(x, self.weight, residual, 1.0, self.bias, *geometry)
        y = F.conv2d(x, self.weight, self.bias, *geometry)
        return F.relu_(y if residual is None else y.add_(residual))


class StemReLU(ConvReLU):
    """The 7x7 stride-2 stem as a 4x3 stride-1 convolution over pixel blocks of 2 rows and 4 columns, the same sums in
    another order.

    Six input channels and 64 output channels leave tensor cores idle. A block has 48 input channels; its two output pixels,
    which lie side by side, are 128 output channels, and in memory these are the image that follows. Height must be even, width
    a multiple of 4. It takes several batches and joins them, since it copies its input anyway.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        if not self.fits(conv):
            raise ValueError(f"StemReLU stands for a 7x7 stride-2 convolution with padding 3, not {conv}")
        out, channels = conv.weight.shape[:2]
        # The left of two output pixels begins at the second of a block's 8 x 12 pixels, the right one two further on.
        padded = torch.stack([F.pad(conv.weight.detach(), (1 + 2 * i, 4 - 2 * i, 1, 0)) for i in range(2)])
        blocks = padded.view(2, out, channels, 4, 2, 3, 4).permute(0, 1, 4, 6, 2, 3, 5)
        self.weight = nn.Parameter(blocks.reshape(2 * out, 8 * channels, 4, 3).contiguous(), requires_grad=False)
        self.bias = nn.Parameter(self.bias.detach().repeat(2), requires_grad=False)
        self.stride, self.padding = [1, 1], [0, 0]

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether a convolution has the geometry of the stem."""
        geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
        return geometry == ((7, 7), (2, 2), (3, 3), (1, 1), 1)

    def forward(self, x: Tensor | Sequence[Tensor], residual: Tensor | None = None) -> Tensor:
        """A residual cannot be added."""
        from .stem_kernels import pixel_blocks

        pairs = super().forward(pixel_blocks([x] if isinstance(x, Tensor) else x), residual)
        n, channels, rows, columns = pairs.shape
        return pairs.permute(0, 2, 3, 1).reshape(n, rows, 2 * columns, channels // 2).permute(0, 3, 1, 2)


class KeepCrops(JoinCrops):
    """Joins nothing: for an encoder that begins with a StemReLU, which takes both batches and joins them itself."""

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        return rendered, observed


class OnePassJoin(JoinFeatures):
    """JoinFeatures in one pass over memory; the result is channels-last."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        from .copy_kernels import join_sides

        return join_sides(a, b)


class OnePassEmbedding(PositionEmbedding):
    """PositionEmbedding for float16 tokens, in one pass over memory."""

    def forward(self, x: Tensor) -> Tensor:
        from .copy_kernels import add_embedding

        return add_embedding(x, self.pe[0])


def one_pass_copies(module: nn.Module) -> nn.Module | None:
    """A copy of a network that shares its weights and joins and embeds by OnePassJoin and OnePassEmbedding; None where
    ``module`` holds no PairNetwork. It is for inference in float16."""
    rewritten = copy_sharing_weights(module)
    fitting = [m for m in rewritten.modules() if isinstance(m, PairNetwork)]
    for part in fitting:
        part.join_features = OnePassJoin().eval()
        part.pos_embed = OnePassEmbedding(part.pos_embed.pe).eval()
    return rewritten if fitting else None


def copy_sharing_weights(module: Module) -> Module:
    """A copy whose structure can be rewritten while parameters and buffers stay those of ``module``."""
    return copy.deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})


def fuse_conv_relu(module: nn.Module, *, stem: bool = False) -> nn.Module:
    """A copy of a folded network whose conv → ReLU and conv → add → ReLU chains are single ``ConvReLU`` calls.

    It shares the weights, except the stem's. stem: 7x7 stride-2 convolutions become ``StemReLU``, which needs image sizes that
    are multiples of 4.
    """
    fused = copy_sharing_weights(module)
    for name, traced in _traced_parts(fused).items():
        _fuse_part(traced, stem)
        if not name:
            return traced
        set_submodule(fused, name, traced)
    for part in fused.modules():
        if isinstance(part, PairNetwork) and _begins_with_stem(part.encoders[0]):
            part.join_crops = KeepCrops().eval()
    return fused


def _begins_with_stem(traced: nn.Module) -> bool:
    """Whether the input goes to a StemReLU and nowhere else."""
    if not isinstance(traced, fx.GraphModule):
        return False
    users = [user for node in traced.graph.nodes if node.op == "placeholder" for user in node.users]
    return (
        len(users) == 1
        and users[0].op == "call_module"
        and isinstance(traced.get_submodule(str(users[0].target)), StemReLU)
    )


def _fuse_part(traced: fx.GraphModule, stem: bool) -> None:
    graph = traced.graph
    _remove_identities(traced)
    for relu in list(graph.nodes):
        if not _is_relu(relu, traced):
            continue
        source = relu.args[0]
        conv, residual = source, None
        if _is_add(source):
            left, right = source.args
            conv, residual = (right, left) if _fusable(right, traced) else (left, right)
            if len(source.users) != 1 or not isinstance(residual, fx.Node):
                continue
        if not _fusable(conv, traced) or not isinstance(source, fx.Node) or not isinstance(conv, fx.Node):
            continue
        name = str(conv.target).replace(".", "_") + "_relu"
        layer = traced.get_submodule(str(conv.target))
        assert isinstance(layer, nn.Conv2d)
        traced.add_submodule(
            name, StemReLU(layer) if stem and residual is None and StemReLU.fits(layer) else ConvReLU(layer)
        )
        with graph.inserting_before(relu):
            args = (conv.args[0],) if residual is None else (conv.args[0], residual)
            fused = graph.call_module(name, args)
        relu.replace_all_uses_with(fused)
        graph.erase_node(relu)
        if residual is not None:
            graph.erase_node(source)
        graph.erase_node(conv)
    graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()


def _remove_identities(traced: fx.GraphModule) -> None:
    """Take identities out, which folded norms have become: they stand between a convolution and its ReLU."""
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(str(node.target)), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)


def _fusable(node: object, traced: fx.GraphModule) -> bool:
    """A convolution that ``ConvReLU`` can stand for and whose output is used once."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
        return False
    conv = traced.get_submodule(str(node.target))
    return isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_relu(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    if node.op == "call_function":
        return node.target in (F.relu, F.relu_, torch.relu, torch.relu_)
    return node.op == "call_method" and node.target in ("relu", "relu_")


def _is_add(node: object) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_function":
        return node.target in (operator.add, operator.iadd, torch.add)
    return node.op == "call_method" and node.target in ("add", "add_")
