"""RF-DETR's backbone as a training step runs it: wholly in one narrow type, from FP32 weights that stay the master.

Under autocast every norm, scale and sum of the ViT runs in FP32 with copies between, which is most of a step. Here the
weights are cast once a step and nothing inside is cast again; what comes out goes to the decoder as FP32.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Each linear layer of a ViT block has a layer scale that multiplies its output.
_SCALED = {"attention.output.dense": "layer_scale1", "mlp.fc2": "layer_scale2", "mlp.weights_out": "layer_scale2"}


class NarrowBackbone:
    """Stands in for the forward pass of ``network.backbone[0]``; the module keeps its parameters and their names.

    dtype: what it computes in. narrow: after a pass, its features (B, C, h, w) in that type, for heads that want them so.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.narrow: Tensor | None = None
        self._masters = dict(backbone.named_parameters())
        # A copy without weights, whose modules may be exchanged for faster ones of the same names.
        self._body = _Body(copy.deepcopy(backbone).to("meta"))
        self._scales = _fold_scales(self._body)
        self._names = [n for n in self._masters if n not in self._scales.values()]
        self._run: Callable[..., tuple[list[Tensor], list[Tensor] | None]] = self._call

    def compile(self) -> None:
        """Compile the pass at its next call, as one graph of fixed shapes; that call or its backward may raise."""
        self._run = torch.compile(self._call, fullgraph=True, dynamic=False)

    def run_eagerly(self) -> None:
        """Undo ``compile``."""
        self._run = self._call

    def __call__(self, samples: Any) -> tuple[list[Any], list[Any] | None]:
        """As rfdetr's Backbone.forward, for images without padding."""
        device = samples.tensors.device.type
        with torch.autocast(device, enabled=False):
            weights = _Cast.apply(self.dtype, *self._folded())
            features, cross = self._run(samples.tensors, weights)
        self.narrow = features[0]
        kind = type(samples)

        def nested(feature: Tensor) -> Any:
            size = (feature.shape[0], *feature.shape[2:])
            return kind(feature.float(), torch.zeros(size, dtype=torch.bool, device=feature.device))

        return [nested(f) for f in features], None if cross is None else [nested(f) for f in cross]

    def _call(self, image: Tensor, weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor] | None]:
        given = dict(zip(self._names, weights, strict=True))
        result: tuple[list[Tensor], list[Tensor] | None] = torch.func.functional_call(
            self._body, given, (image.to(self.dtype),), strict=True
        )
        return result

    def _folded(self) -> list[Tensor]:
        """FP32 weights with the layer scales multiplied into them; equal shapes in one go, as they are many and small."""
        found: dict[str, Tensor] = {n: self._masters[n] for n in self._names}
        shapes: dict[torch.Size, list[str]] = {}
        for name in self._scales:
            shapes.setdefault(found[name].shape, []).append(name)
        for shape, names in shapes.items():
            scale = torch.stack([self._masters[self._scales[n]] for n in names]).view(
                len(names), -1, *[1] * (len(shape) - 1)
            )
            scaled = torch.stack([found[n] for n in names]) * scale
            found.update(zip(names, scaled.unbind(), strict=True))
        return list(found.values())


class _Body(nn.Module):
    """The backbone's modules under their own names, from images to feature maps."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.encoder, self.projector = backbone.encoder, backbone.projector
        self.cross_attn_projector = getattr(backbone, "cross_attn_projector", None)
        vit = self.encoder.encoder
        vit.embeddings.patch_embeddings = _Patches(vit.embeddings.patch_embeddings)
        _keep_positions(vit.embeddings)
        for block in vit.encoder.layer:
            if type(block.attention.attention).__name__ == "Dinov2WithRegistersSdpaSelfAttention":
                block.attention.attention = _Attention(block.attention.attention)
        for module in [m for m in self.modules() if type(m).__name__ == "ConvX"]:
            module.forward = types.MethodType(_channels_last, module)
            if hasattr(module.act, "inplace"):
                module.act.inplace = False  # in place, autograd would keep a copy

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor] | None]:
        raw = self.encoder(image)
        cross = None if self.cross_attn_projector is None else list(self.cross_attn_projector(raw))
        return list(self.projector(raw)), cross


class _Cast(torch.autograd.Function):
    """Casts many tensors in one kernel, and their gradients back in one."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.types = [t.dtype for t in tensors]
        return tuple(_copies(tensors, [dtype] * len(tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        pairs = [(g, t) for g, t in zip(gradients, ctx.types, strict=True) if g is not None]
        wide = iter(_copies([g for g, _ in pairs], [t for _, t in pairs]))
        return (None, *(None if g is None else next(wide) for g in gradients))


def _copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    made = [torch.empty_like(t, dtype=d) for t, d in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(made, list(tensors))
    return made


class _Patches(nn.Module):
    """The patch embedding as a matrix product: cuDNN has no good kernel for so wide a stride on three channels."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.projection = original.projection

    def forward(self, image: Tensor) -> Tensor:
        batch, channels, height, width = image.shape
        a, b = self.projection.kernel_size
        tiles = image.view(batch, channels, height // a, a, width // b, b).permute(0, 2, 4, 1, 3, 5)
        return F.linear(
            tiles.reshape(batch, -1, channels * a * b), self.projection.weight.flatten(1), self.projection.bias
        )


class _Attention(nn.Module):
    """Query, key and value as one product: the tokens are read once, and the sum of the gradients is rounded once."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = original.query, original.key, original.value
        self.heads = original.num_attention_heads

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        parts = (self.query, self.key, self.value)
        weight = torch.cat([p.weight for p in parts])
        bias = None if self.query.bias is None else torch.cat([p.bias for p in parts])
        split = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in F.linear(tokens, weight, bias).chunk(3, -1))
        return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2), None


def _channels_last(conv: Any, x: Tensor) -> Tensor:
    """ConvX's pass in the layout of its norms and of the tensor cores; rfdetr turns the layout before every one."""
    result: Tensor = conv.act(conv.bn(conv.conv(x.contiguous(memory_format=torch.channels_last))))
    return result


def _keep_positions(embeddings: Any) -> None:
    """At the size that the positions are for they are used as they are, without the break rfdetr makes in a graph."""
    general = embeddings.interpolate_pos_encoding

    def interpolate(self: Any, tokens: Tensor, height: int, width: int) -> Tensor:
        if tokens.shape[1] == self.position_embeddings.shape[1] and height == width:
            own: Tensor = self.position_embeddings
            return own
        other: Tensor = general(tokens, height, width)
        return other

    embeddings.interpolate_pos_encoding = types.MethodType(interpolate, embeddings)


def _fold_scales(body: nn.Module) -> dict[str, str]:
    """Remove the layer scales from a body; returns the name of each weight and bias they go into -> the scale's name.

    As a factor of the weights a scale costs nothing; as an operator it is three passes over all tokens.
    """
    found: dict[str, str] = {}
    blocks = body.encoder.encoder.encoder.layer  # type: ignore[union-attr]
    for i, block in enumerate(blocks):  # type: ignore[arg-type,union-attr]
        for linear, scale in _SCALED.items():
            head, _, tail = linear.rpartition(".")
            owner = block.get_submodule(head)
            if not hasattr(owner, tail):
                continue
            prefix = f"encoder.encoder.encoder.layer.{i}."
            for name, _ in getattr(owner, tail).named_parameters():
                found[f"{prefix}{linear}.{name}"] = f"{prefix}{scale}.lambda1"
        for scale in sorted({s.rpartition(".")[0].rpartition(".")[2] for s in found.values() if s.startswith(prefix)}):
            setattr(block, scale, nn.Identity())
    return found
