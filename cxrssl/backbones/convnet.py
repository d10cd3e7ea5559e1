"""The convolutional backbone: timm's feature extractors, with MLVICX's gates if wanted."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from timm.models.resnet import ResNet
from torch import Tensor, nn

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.context import ContextBottleneck, checked_gates
from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError

__all__ = ["ConvNet"]


class ConvNet(Backbone):
    """A timm model with ``features_only``, whose maps are its levels.

    The levels of a ResNet are its stem before the pooling and its four stages, at 1/2, 1/4, 1/8,
    1/16 and 1/32 of the image: those of MLVICX (arXiv 2403.11504). There are no class token and no
    patches that could be masked; the patch tokens are the pixels of the last map.

    Args:
        name: Name of a timm model that gives its features stage by stage, such as ``resnet18``,
            ``resnet50``, ``convnext_tiny`` or ``densenet121``.
        img_size: Side in pixels of the square images it is made for; others work too.
        in_chans: Channels of the images.
        zero_init_residual: For a ResNet: whether the last norm of each residual branch starts at 0,
            as in VICReg; not in MLVICX.
        gates: Numbers of the levels behind which a :class:`ContextBottleneck` gates in line; none
            by default. MLVICX gates all levels of its ResNet.
        gate_kernel: Side of the gates' spatial convolution.
        weights: File with pretrained weights; see :func:`load_backbone_weights`.

    Raises:
        InputError: If the model cannot be used so, or the weights do not fit.
    """

    def __init__(
        self,
        name: str = "resnet18",
        *,
        img_size: int = 224,
        in_chans: int = 1,
        zero_init_residual: bool = False,
        gates: Sequence[int] = (),
        gate_kernel: int = 7,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if img_size < 1 or in_chans < 1:
            raise InputError(
                f"img_size and in_chans must be positive, got {img_size} and {in_chans}"
            )
        self.arguments: dict[str, Any] = {
            "name": name,
            "img_size": img_size,
            "in_chans": in_chans,
            "zero_init_residual": zero_init_residual,
            "gates": [],
            "gate_kernel": gate_kernel,
        }
        self.load_report = None
        self.pretrained_mask_token = None
        self.net = _build(name, in_chans, zero_init_residual)
        self.gates = nn.ModuleDict()
        self.level_dims = tuple(self.net.feature_info.channels())
        self.embed_dim = self.level_dims[-1]
        self.depth = len(self.level_dims) - 1
        self.in_chans = in_chans
        self.img_size = img_size
        if gates:
            self.insert_gates(gates, gate_kernel)
        if weights is not None:
            from cxrssl.backbones.weights import load_backbone_weights

            self.load_report = load_backbone_weights(self, weights)

    def forward(self, x: Tensor) -> Tokens:
        """Encode images (B, C, H, W); the tokens are the pixels of the last map."""
        return _tokens(self._maps(x)[-1])

    def levels(self, x: Tensor, levels: Sequence[int]) -> list[Tokens]:
        """Return the tokens after the given levels, see :meth:`Backbone.levels`."""
        maps = self._maps(x)
        return [_tokens(maps[number]) for number in levels]

    def layer_of(self, name: str) -> int:
        """Return the number of the level that a parameter belongs to."""
        room, module, *_ = name.split(".")
        if room == "gates":
            return int(module)
        taps = self.net.return_layers
        modules = list(self.net)
        before = modules[: modules.index(module)]
        return min(sum(tap in taps for tap in before), self.depth)

    def insert_gates(self, levels: Sequence[int], kernel: int = 7) -> None:
        """Put a :class:`ContextBottleneck` behind each of the given levels."""
        numbers = checked_gates(levels, len(self.level_dims))
        if self.gates:
            raise InputError(f"the backbone has gates already, at {self.arguments['gates']}")
        self.gates = nn.ModuleDict(
            {str(n): ContextBottleneck(self.level_dims[n], kernel=kernel) for n in numbers}
        )
        self.arguments |= {"gates": numbers, "gate_kernel": kernel}

    def drop_gates(self) -> None:
        """Take the gates out again; the stages behind them then see larger values."""
        self.gates = nn.ModuleDict()
        self.arguments["gates"] = []

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for name, module in self.net.items():
            x = module(x)
            if name in self.net.return_layers:
                gate = str(len(maps))
                x = self.gates[gate](x) if gate in self.gates else x
                maps.append(x)
        _check_kernels(maps[-1])
        return maps


def _check_kernels(last: Tensor) -> None:
    """Refuse a case in which torch's gradients are noise (seen in 2.14, oneDNN)."""
    one_pixel = last.shape[-2:] == (1, 1)
    if one_pixel and last.dtype == torch.bfloat16 and last.device.type == "cpu":
        raise InputError(
            "images this small leave maps of one pixel, on which a CPU computes wrong gradients of "
            "convolutions in bfloat16: use larger images or crops, or precision 32-true"
        )


def _tokens(level: Tensor) -> Tokens:
    patches = level.flatten(2).transpose(1, 2)
    height, width = level.shape[-2:]
    return Tokens(cls=None, registers=patches[:, :0], patches=patches, grid=(height, width))


def _build(name: str, in_chans: int, zero_init_residual: bool) -> FeatureListNet:
    if not timm.is_model(name):
        raise InputError(f"unknown backbone {name!r}: use the name of a timm model, e.g. resnet18")
    with torch.device("meta"):
        is_resnet = isinstance(timm.create_model(name, pretrained=False), ResNet)
    if zero_init_residual and not is_resnet:
        raise InputError(f"zero_init_residual is for ResNets; {name} is none")
    options = {"zero_init_last": zero_init_residual} if is_resnet else {}
    try:
        net = timm.create_model(
            name, pretrained=False, features_only=True, in_chans=in_chans, **options
        )
    except (AttributeError, RuntimeError, TypeError) as error:
        raise InputError(f"{name} cannot be used: timm cannot take its features") from error
    if type(net) is not FeatureListNet:
        raise InputError(
            f"{name} cannot be used: its features come as a {type(net).__name__}, and only those "
            "that timm takes stage by stage (FeatureListNet: ResNets, ConvNeXts, DenseNets) work"
        )
    return net
