"""The convolutional backbone: timm's feature extractors, with MLVICX's gates if wanted."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import timm
import torch
from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.context import ContextBottleneck
from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError

__all__ = ["ConvNet"]


class ConvNet(Backbone):
    """A timm model taken stage by stage (``features_only``), whose maps are its levels.

    The levels of a ResNet are what MLVICX takes (arXiv 2403.11504): the stem before its pooling and
    the four stages, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's side. The pixels of a map are
    its patch tokens; there are no other tokens, and no final norm.

    Args:
        name: A timm model that gives its features stage by stage, such as ``resnet18``,
            ``resnet50``, ``convnext_tiny``, ``densenet121`` or ``efficientnet_b0``.
        img_size: Side in pixels of the square images it is made for; others work too.
        in_chans: Channels of the images.
        zero_init_residual: Whether the last norm of each residual branch starts at 0, so that the
            branch does: VICReg's ResNet-50 does so, MLVICX's ResNet-18 and torchvision do not.
        gates: Whether each level has a :class:`ContextBottleneck` in line, or the numbers of those
            that have; see :meth:`insert_gates`. MLVICX gates all levels.
        gate_kernel: Side of the gates' spatial convolution; 7 if left out.
        weights: File with pretrained weights; see :func:`load_backbone_weights`.

    Raises:
        InputError: If timm's model cannot be used so, or the sizes or the weights do not fit.
    """

    def __init__(
        self,
        name: str = "resnet18",
        *,
        img_size: int = 224,
        in_chans: int = 1,
        zero_init_residual: bool = False,
        gates: bool | Sequence[int] = False,
        gate_kernel: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "name": name,
            "img_size": img_size,
            "in_chans": in_chans,
            "gates": [],
            "gate_kernel": None,
        }
        for key in ("img_size", "in_chans"):
            if self.arguments[key] < 1:
                raise InputError(f"{key} must be positive, got {self.arguments[key]}")
        options = {"in_chans": in_chans, **_zero_init(name, zero_init_residual)}
        self.grid = _checked_grid(name, img_size, options)
        self.net = _features(name, options)
        self.gates = nn.ModuleDict()
        self.img_size = img_size
        self.in_chans = in_chans
        self.level_dims = tuple(self.net.feature_info.channels())
        self.embed_dim = self.level_dims[-1]
        self.stride: int = self.net.feature_info.reduction()[-1]
        self._layers, self._level_layers = _layers(self.net)
        self.depth = self._level_layers[-1]
        if gates:
            self.insert_gates(None if gates is True else gates, gate_kernel)
        if weights is not None:
            from cxrssl.backbones.weights import load_backbone_weights

            self.load_report = load_backbone_weights(self, weights)

    def forward(self, x: Tensor) -> Tokens:
        """Encode images (B, C, H, W), whose tokens are the pixels of the last map.

        Raises:
            InputError: If the images are too small.
        """
        return _tokens(self._maps(x, len(self.level_dims) - 1)[-1])

    def levels(
        self,
        x: Tensor,
        levels: Sequence[int],
        norm: bool | Literal["last"] = True,
        stem: bool = False,
    ) -> list[Tokens]:
        """Return the tokens after the given levels; see :meth:`Backbone.levels`.

        Args:
            x: Images (B, C, H, W).
            levels: Numbers of levels; negative ones count from the end.
            norm: Of no effect, since there is no final norm.
            stem: Refused, since what embeds the image is level 0 or a part of it.
        """
        if stem:
            raise InputError("a ConvNet has no stem beside its levels: ask for level 0")
        numbers = self._numbers(levels)
        maps = self._maps(x, max(numbers, default=-1))
        return [_tokens(maps[number]) for number in numbers]

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 for the stem, i + 1 for stage i with its gate.

        The stem is what comes before the first level at a quarter of the image's side or less.
        """
        room, _, rest = name.partition(".")
        child = rest.partition(".")[0]
        if room == "gates":
            return self._level_layers[int(child)]
        return self._layers.get(child, self.depth + 1) if room == "net" else self.depth + 1

    def _maps(self, x: Tensor, last: int) -> list[Tensor]:
        """Return the maps of all levels up to the last one that is wanted."""
        height, width = x.shape[-2:]
        too_small = InputError(
            f"images of {height} x {width} px are too small for {self.arguments['name']}: its last "
            f"level has one pixel for {self.stride} px of each side"
        )
        if 2 * min(height, width) < self.stride:
            raise too_small  # a pixel of the last level would see more padding than image
        try:
            return self._walk(x, last)
        except RuntimeError as error:
            if min(height, width) < self.stride:
                raise too_small from error
            raise

    def _walk(self, x: Tensor, last: int) -> list[Tensor]:
        maps: list[Tensor] = []
        for name, module in self.net.items():
            if len(maps) > last:
                break
            x = module(x)
            if name in self.net.return_layers:
                gate = str(len(maps))
                x = self.gates[gate](x) if gate in self.gates else x
                maps.append(x)
        _check_kernels(maps[-1])
        return maps

    def _new_gate(self, level: int, kernel: int) -> ContextBottleneck:
        return ContextBottleneck(self.level_dims[level], kernel=kernel)

    def _set_gate(self, level: int, gate: nn.Module | None) -> None:
        if gate is None:
            del self.gates[str(level)]
        else:
            self.gates[str(level)] = gate


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


def _zero_init(name: str, wanted: bool) -> dict[str, bool]:
    """Return the option with which timm's model starts its residual branches as wanted."""
    if not timm.is_model(name):
        raise InputError(
            f"unknown backbone {name!r}: use the name of a convolutional timm model, e.g. resnet18"
        )
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    if "zero_init_last" in inspect.signature(type(model)).parameters:
        return {"zero_init_last": wanted}
    if wanted:
        raise InputError(f"zero_init_residual is for ResNets and the like, not for {name}")
    return {}


def _features(name: str, options: dict[str, Any]) -> FeatureListNet:
    create = partial(timm.create_model, name, pretrained=False, features_only=True, **options)
    try:
        net = create()
        if isinstance(net, EfficientNetFeatures | MobileNetV3Features):
            # The same stages, as modules that can be walked through one after the other.
            net = create(feature_cls="list", feature_cfg={"flatten_sequential": True})
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be used: timm cannot take its features") from error
    if type(net) is not FeatureListNet:
        raise InputError(
            f"{name} cannot be used: timm takes its features with a {type(net).__name__}, and only "
            "models that it takes stage by stage (FeatureListNet), such as ResNets, ConvNeXts or "
            "DenseNets, can be"
        )
    return net


def _checked_grid(name: str, img_size: int, options: dict[str, Any]) -> tuple[int, int]:
    """Return rows and columns of the last map, and make sure that all maps are what timm says."""
    with torch.device("meta"):  # no memory, no arithmetic
        net = _features(name, options).eval()
        images = torch.empty(1, options["in_chans"], img_size, img_size)
    stride = net.feature_info.reduction()[-1]
    if img_size < stride:
        raise InputError(f"img_size must be at least the stride {stride} of {name}, got {img_size}")
    try:
        maps = net(images)
        usable = [each.shape[1] for each in maps if each.ndim == 4] == net.feature_info.channels()
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be used on images of {img_size} px: {error}") from error
    if not usable:
        raise InputError(f"{name} cannot be used: its features are no maps (B, C, h, w)")
    height, width = maps[-1].shape[-2:]
    return height, width


def _layers(net: FeatureListNet) -> tuple[dict[str, int], list[int]]:
    """Return the layers of timm's modules, by name, and those of the levels.

    What leads from one level to the next belongs to the next one's stage.
    """
    stems = sum(reduction < 4 for reduction in net.feature_info.reduction())
    modules: dict[str, int] = {}
    levels: list[int] = []
    for name in net:
        stage = len(levels) + 1 - stems
        tapped = name in net.return_layers
        before_all = not levels and not tapped  # where the first level is a stage
        modules[name] = 0 if before_all else max(stage, 0)
        if tapped:
            levels.append(modules[name])
    return modules, levels
