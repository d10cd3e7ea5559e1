"""What objectives share that predict tokens from other tokens: target encoder, predictor, loss."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.backbones import Backbone, Tokens, ViT, pick_tokens
from cxrssl.backbones.codes import AxisOrder, place_in_other_crop, sincos_codes
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.losses import TokenDistance, token_loss, token_spread
from cxrssl.objectives.base import Objective
from cxrssl.objectives.jepa_weights import holds_jepa, load_jepa
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.stage import load_stage, read_stage
from cxrssl.objectives.teacher import Teacher
from cxrssl.objectives.vit_only import vit_only
from cxrssl.schedules import Schedule
from cxrssl.views import Views

__all__ = ["JEPA"]


class JEPA(Objective):
    """Joint-embedding prediction: the base of :class:`IJEPA` and :class:`WorldModel`.

    The context encoder (the backbone) sees some patches. The predictor tells from its tokens what
    the target encoder, a moving average of the backbone, makes of patches elsewhere. Targets are
    normalised over their channels.

    A class token of the backbone takes part in attention but is not trained to stand for the image,
    so that :meth:`embed` always gives the mean patch token.

    Args:
        backbone: Context encoder, a :class:`ViT`. The published ones have ``class_token=False``,
            ``position="sincos"`` and ``init="jepa"``.
        predictor: Makes the predictor for a token width and the numbers of an action.
        actions: Numbers of an action that the predictor is told.
        views: See :class:`Objective`.
        weights: See :class:`Objective`. ``variance``, 0 by default, is the share by which the
            spread of each image's predictions falls short of 1; ``sigreg``, 0 by default, is
            SIGReg of the mean context tokens.
        recipe: See :class:`Objective`.
        init_from: See :class:`Objective`; a released checkpoint of CheXWorld or I-JEPA works too.
        max_nonfinite: See :class:`Objective`.
        momentum: Momentum of the target encoder.
        distance: See :func:`token_loss`.
        target_blocks: Number of last blocks whose outputs are averaged before they are normalised;
            only the last one's passes the final norm.
        code_grid: Side of the grid whose places the predictor's codes count in; the backbone's if
            left out. A stage at a higher resolution gives that of the first stage, so that a place
            in the image keeps its code.

    Raises:
        InputError: If the grid of the views' patches is not the backbone's, or an option is out of
            range.
    """

    backbone: ViT
    trained_pooling = "mean"
    default_weights: ClassVar[Mapping[str, float]] = {"variance": 0.0}
    target_order: AxisOrder = "column_first"
    """Which axis has the first half of the codes of target positions."""

    def __init__(
        self,
        backbone: Backbone,
        predictor: Callable[[int, int], Predictor],
        actions: int,
        *,
        views: Views | None,
        weights: Mapping[str, float] | None,
        recipe: Recipe,
        init_from: str | None,
        max_nonfinite: int,
        momentum: Schedule,
        distance: TokenDistance,
        target_blocks: int,
        code_grid: int | None,
    ) -> None:
        backbone = vit_only(backbone, type(self).__name__)
        super().__init__(
            backbone,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        if backbone.arguments["gates"]:
            raise InputError(
                f"{type(self).__name__} drops patches, and the backbone's in-line gates need whole "
                "maps: build it without gates"
            )
        self._check_grid()
        depth = backbone.depth
        if not 1 <= target_blocks <= depth:
            raise InputError(f"target_blocks must be in [1, {depth}], got {target_blocks}")
        if distance not in ("mse", "smooth_l1"):
            raise InputError(f"distance must be 'mse' or 'smooth_l1', got {distance!r}")
        if code_grid is not None and code_grid < 1:
            raise InputError(f"code_grid must be positive, got {code_grid}")
        self.distance: TokenDistance = distance
        self.code_grid = code_grid
        self.target_blocks = target_blocks
        self.predictor = predictor(backbone.embed_dim, actions)
        self.teacher = Teacher(backbone, momentum)

    @property
    def encoder(self) -> ViT:
        """The target encoder."""
        encoder: ViT = self.teacher.module  # type: ignore[assignment]
        return encoder

    def update_teacher(self, progress: float) -> None:
        """Move the target encoder."""
        self.teacher.update(self.backbone, progress, self.schedule_entries)

    def restart_teacher(self) -> None:
        """Make the target encoder equal to the context encoder."""
        self.teacher.restart(self.backbone)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return one group: the published clipping is by the norm over everything."""
        return {"all": [p for p in self.parameters() if p.requires_grad]}

    def take_over(self, path: str) -> str:
        """Load an earlier stage, or a checkpoint in the layout CheXWorld and I-JEPA released."""
        state = read_stage(path)
        return (load_jepa if holds_jepa(state) else load_stage)(self, state, path)

    @torch.no_grad()
    def targets(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Return what the predictor is to tell: normalised tokens (B, K, D) of images.

        Args:
            images: (B, C, H, W).
            index: Patches (B, K) that are wanted; all if left out.
        """
        teacher = self.encoder
        if self.target_blocks == 1:
            tokens = teacher(images, wanted=index).patches
        else:
            numbers = range(-self.target_blocks, 0)
            levels = teacher.levels(images, numbers, norm="last")
            tokens = torch.stack([level.patches for level in levels]).mean(0)
            tokens = tokens if index is None else pick_tokens(tokens, index)
        return F.layer_norm(tokens.float(), tokens.shape[-1:])

    def _check_grid(self) -> None:
        size, patch, grid = self.views.image_size, self.backbone.patch_size, self.backbone.grid
        seen = getattr(self.views, "patch_size", patch)
        if seen != patch or (size // patch, size // patch) != grid:
            raise InputError(
                f"the views cut {size} px into patches of {seen} px but the backbone's grid of "
                f"{grid[0]} x {grid[1]} patches of {patch} px is another one; set image_size and "
                "patch_size of both to the same numbers"
            )

    def _context(self, images: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the predictor sees of images (M, C, H, W), and their mean tokens.

        Returns:
            Tokens (M, Kc, d) of the predictor's width, and means (M, D) of the backbone's.
        """
        tokens: Tokens = self.backbone(images, keep=keep)
        index = self._all_patches(len(images)) if keep is None else keep
        embedded: Tensor = self.predictor.embed(tokens.patches)
        return embedded + self._codes(index), tokens.patches.mean(1)

    def _codes(
        self, index: Tensor, offset: Tensor | None = None, order: AxisOrder = "column_first"
    ) -> Tensor:
        """Return the predictor's codes (M, K, d) of patches (M, K)."""
        rows, columns = self._places(index, offset)
        return sincos_codes(rows, columns, self.predictor.width, order)

    def _places(self, index: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return rows and columns (M, K) in which the codes count."""
        grid = self.backbone.grid
        rows, columns = place_in_other_crop(index, grid, offset)
        if self.code_grid is None:
            return rows, columns
        # The centre of a patch, not its number, keeps its place in the image.
        coarse, (height, width) = self.code_grid, grid
        return (rows + 0.5) * (coarse / height) - 0.5, (columns + 0.5) * (coarse / width) - 0.5

    def _all_patches(self, n: int) -> Tensor:
        height, width = self.backbone.grid
        return torch.arange(height * width, device=self.device).expand(n, -1)

    def _loss(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        return token_loss(predicted, wanted, self.distance)

    def _variance(self, predicted: list[Tensor]) -> Tensor:
        """Return by how much the spread of predictions (M, K, D) falls short of 1."""
        return torch.stack([F.relu(1 - token_spread(z)).mean() for z in predicted]).mean()

    @torch.no_grad()
    def _monitor(self, predicted: list[Tensor], targets: Tensor) -> None:
        """Note whether predictions and targets differ between the patches of an image."""
        spreads = [token_spread(z.detach()).mean() for z in predicted]
        self.monitored |= {
            "prediction_spread": torch.stack(spreads).mean(),
            "target_spread": token_spread(targets).mean(),
        }
