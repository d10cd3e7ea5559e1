"""Masks of structures from the levels of an encoder, frozen or fine-tuned."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.dice import dice_scores
from cxrssl.backbones import Backbone, Tokens
from cxrssl.errors import InputError
from cxrssl.heads import SegmentationDecoder, UPerNetDecoder
from cxrssl.losses.dice import bce_of_images, dice_of_images, segmentation_bce, soft_dice
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks.base import Task, unread
from cxrssl.tasks.options import check_names
from cxrssl.tasks.outputs import Outputs, metric_key
from cxrssl.tasks.results import Results, TestImages
from cxrssl.tasks.segmentation_results import segmentation_results
from cxrssl.views import Views
from cxrssl.views.targets import Targets

__all__ = ["Segmentation"]

SEGMENTATION_RECIPE = Recipe(
    lr=Schedule(5e-4, final=0.0),
    lr_scaling="none",
    weight_decay=Schedule(0.0),
    layer_decay=1.0,
    patch_embed_lr=1.0,
    clip=None,
    freeze_last_layer=0.0,
)
"""Adam and a cosine, as RAD-DINO trains its decoders (App. C.3)."""


class Segmentation(Task):
    """Segmentation of structures, which may overlap, with any decoder on an encoder.

    The loss is soft Dice plus binary cross-entropy of each structure. Dice is measured for each
    image and structure: 1 where truth and prediction are both empty, 0 where one of them is.

    Logged are ``val/loss``, without that of an auxiliary head, and
    ``{val,test}/dice/{macro,<structure>}`` and the same as ``dice_where_present``, over the images
    that show the structure.

    Args:
        encoder: See :class:`Task`.
        structures: Masks of the index, in the order of the maps: columns ``mask/<structure>``.
        decoder: :class:`LinearDecoder`, :class:`ViTDetDecoder`, :class:`UPerNetDecoder` or
            :class:`UNetDecoder`.
        frozen: Whether the encoder stays as it is; otherwise it is fine-tuned.
        dice_weight: Weight of the soft Dice loss.
        bce_weight: Weight of the binary cross-entropy.
        threshold: Probability from which a pixel is predicted to be inside.
        fewest_pixels: A structure predicted on fewer pixels of an image is taken for absent.
        examples: Test images of which ``examples`` keeps pixels and masks, for figures.
        views: See :class:`Task`; left and right structures need ``flip: 0``.
        recipe: See :class:`Task`; Adam with a cosine from 5e-4 by default.
        drop_path: See :class:`Task`.
        patch_size: See :class:`Task`.
        drop_gates: See :class:`Task`.
        max_nonfinite: See :class:`Task`.

    Raises:
        InputError: If options are out of range, or decoder and encoder do not fit.
    """

    def __init__(
        self,
        encoder: Backbone | str,
        structures: list[str],
        decoder: Callable[[Sequence[int], int, int], SegmentationDecoder] = UPerNetDecoder,
        *,
        frozen: bool = True,
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        threshold: float = 0.5,
        fewest_pixels: int = 0,
        examples: int = 8,
        views: Views | None = None,
        recipe: Recipe = SEGMENTATION_RECIPE,
        drop_path: float = 0.0,
        patch_size: int | None = None,
        drop_gates: bool = False,
        max_nonfinite: int = 2,
    ) -> None:
        check_names("structures", structures)
        if not 0 < threshold < 1:
            raise InputError(f"threshold must be in (0, 1), got {threshold}")
        if min(dice_weight, bce_weight) < 0 or dice_weight + bce_weight == 0:
            raise InputError(
                "dice_weight and bce_weight must not be negative, nor both 0, got "
                f"{dice_weight} and {bce_weight}"
            )
        if min(fewest_pixels, examples) < 0:
            raise InputError(
                "fewest_pixels and examples must not be negative, got "
                f"{fewest_pixels} and {examples}"
            )
        super().__init__(
            encoder,
            Targets(structures=tuple(structures)),
            frozen=frozen,
            views=views,
            recipe=recipe,
            drop_path=drop_path,
            patch_size=patch_size,
            drop_gates=drop_gates,
            max_nonfinite=max_nonfinite,
        )
        self.structures = list(structures)
        self.decoder = decoder(self.backbone.level_dims, len(structures), self.backbone.in_chans)
        self.level_numbers = self.decoder.level_numbers()
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight
        self.threshold = threshold
        self.fewest_pixels = fewest_pixels
        self.n_examples = examples
        self.predictions: dict[str, NDArray[Any]] = {}
        self.examples: dict[str, NDArray[Any]] = {}
        self._outputs = Outputs()
        self._shown: list[dict[str, NDArray[Any]]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, C, H, W)."""
        logits: Tensor = self.decoder(self.levels(images), images)
        return logits.float()

    def levels(self, images: Tensor) -> list[Tokens]:
        """Return the tokens that the decoder reads."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone.levels(images, self.level_numbers)

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return soft Dice and binary cross-entropy, and those of an auxiliary head."""
        images, masks = batch["image"], batch["masks"]
        levels = self.levels(images)
        terms = self._terms(self.decoder(levels, images), masks)
        weight = self.decoder.auxiliary_weight
        auxiliary = self.decoder.auxiliary(levels, images) if weight > 0 else None
        if auxiliary is not None:
            terms |= {
                f"auxiliary_{name}": (weight * factor, term)
                for name, (factor, term) in self._terms(auxiliary, masks).items()
            }
        return terms

    def masks_of(self, logits: Tensor) -> NDArray[np.bool_]:
        """Return the predicted masks (B, K, H, W) of logits."""
        masks = logits.sigmoid() >= self.threshold
        masks &= (masks.sum((2, 3)) >= self.fewest_pixels)[..., None, None]
        predicted: NDArray[np.bool_] = masks.cpu().numpy()
        return predicted

    # Lightning's hooks.

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather loss and Dice of each image."""
        logits, masks = self(batch["image"]), batch["masks"]
        dice, bce = dice_of_images(logits, masks), bce_of_images(logits, masks)
        sums, counts = (torch.stack(parts, dim=1) for parts in zip(dice, bce, strict=True))
        self._measure(batch, self.masks_of(logits), loss_sums=sums, loss_counts=counts)

    def on_validation_epoch_end(self) -> None:
        """Log the loss, and mean Dice of each structure."""
        rows = self._outputs.take()
        sums, counts = (
            rows[name].sum(0, dtype=np.float64) for name in ("loss_sums", "loss_counts")
        )
        dice, bce = (sums / np.maximum(counts, 1)).tolist()
        loss = self.dice_weight * dice + self.bce_weight * bce
        self.log("val/loss", loss, sync_dist=True)
        self._log_dice("val", rows)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather Dice of each image, and keep some images for figures."""
        predicted = self.masks_of(self(batch["image"]))
        self._measure(batch, predicted)
        missing = self.n_examples - sum(len(part["image"]) for part in self._shown)
        places = torch.nonzero(batch["readable"]).flatten()[: max(missing, 0)].cpu()
        if len(places):
            grey = self.views.grey(batch["image"].cpu().float())
            self._shown.append(
                {
                    "image": grey[places].numpy(),
                    "truth": batch["masks"].cpu()[places].numpy(),
                    "prediction": predicted[places.numpy()],
                }
            )

    def on_test_epoch_end(self) -> None:
        """Log mean Dice; ``predictions`` keeps that of each image."""
        self.predictions = self._outputs.take()
        self._log_dice("test", self.predictions)
        shown, self._shown = self._shown, []
        names = shown[0] if shown else ()
        self.examples = {name: np.concatenate([part[name] for part in shown]) for name in names}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return ``areas`` (B, K), the share of each view that is predicted to be inside."""
        predicted = torch.from_numpy(self.masks_of(self(batch["image"])))
        areas = unread(batch, predicted.float().mean((2, 3)).to(batch["readable"].device))
        return {"image_number": batch["image_number"], "areas": areas}

    def name_predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the share of the image inside each structure."""
        columns = batch["areas"].cpu().numpy().T
        return {
            "image_number": batch["image_number"].cpu().numpy(),
            **dict(zip(self.structures, columns, strict=True)),
        }

    def results(self, images: TestImages) -> Results:
        """Return Dice of each image, its summary with intervals, and overlays."""
        rows = images.shown_rows("test")
        return segmentation_results(self.predictions, self.examples, self.structures, rows)

    # Parts of the above.

    def _terms(self, logits: Tensor, masks: Tensor) -> dict[str, tuple[float, Tensor]]:
        terms = {}
        if self.dice_weight > 0:
            terms["dice"] = (self.dice_weight, soft_dice(logits, masks))
        if self.bce_weight > 0:
            terms["bce"] = (self.bce_weight, segmentation_bce(logits, masks))
        return terms

    def _measure(
        self, batch: dict[str, Any], predicted: NDArray[np.bool_], **others: Tensor
    ) -> None:
        truth = batch["masks"].cpu().numpy()
        each = torch.from_numpy(dice_scores(predicted, truth))
        empty = torch.from_numpy(~(truth == 1).any((2, 3)))
        self._outputs.add(batch, dice=each, empty=empty, **others)

    def _log_dice(self, split: str, rows: dict[str, NDArray[Any]]) -> None:
        dice = rows["dice"].astype(np.float64)
        conventions = {"dice": dice, "dice_where_present": np.where(rows["empty"], np.nan, dice)}
        for measure, each in conventions.items():
            means = dict(zip(self.structures, _means(each).tolist(), strict=True))
            means["macro"] = float(_means(np.array(list(means.values()))[:, None])[0])
            values = {f"{split}/{measure}/{metric_key(k)}": mean for k, mean in means.items()}
            self.log_dict(values, sync_dist=True)


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (K,) over images (n, K), NaN where nothing is known."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0).sum(0)
    means = np.full(len(sums), np.nan)
    np.divide(sums, known.sum(0), out=means, where=known.any(0))
    return means
