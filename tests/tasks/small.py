"""Small tasks on small encoders, and labelled images for them."""

from functools import partial

import torch

from cxrssl.backbones import ConvNet, ViT
from cxrssl.data import PhantomDataModule
from cxrssl.heads import (
    AttentiveProbe,
    GLoRI,
    LinearDecoder,
    LinearProbe,
    UNetDecoder,
    UPerNetDecoder,
    ViTDetDecoder,
)
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks import Classification, Segmentation
from cxrssl.views import EvalView

SIDE = 48
FINDINGS = ["cardiomegaly", "effusion"]
STRUCTURES = ["lungs", "heart"]
_DRAWN = {}
HEADS = {
    "linear": LinearProbe,
    "attentive": partial(AttentiveProbe, heads=2, mlp_ratio=1),
    "glori": partial(GLoRI, blocks=2, width=16, heads=2, hidden=16),
}
DECODERS = {
    "linear": LinearDecoder,
    "vitdet": partial(ViTDetDecoder, channels=8),
    "upernet": partial(UPerNetDecoder, channels=8, auxiliary_weight=0.4, auxiliary_channels=8),
    "unet": partial(UNetDecoder, width=2),
}


def small_vit(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"img_size": SIDE, "patch_size": 16, "width": 32, "depth": 2, "heads": 2}
    return ViT("vit_tiny", **(sizes | options))


def small_convnet(**options):
    torch.manual_seed(0)
    return ConvNet("test_resnet", img_size=SIDE, **options)


def small_recipe(lr=1e-2, **options):
    plain = {
        "lr": lr if isinstance(lr, Schedule) else Schedule(lr),
        "lr_scaling": "none",
        "weight_decay": Schedule(1e-4),
        "layer_decay": 1.0,
        "patch_embed_lr": 1.0,
        "clip": None,
        "freeze_last_layer": 0.0,
    }
    return Recipe(**(plain | options))


def small_classification(encoder=None, head=LinearProbe, *, seed=0, findings=None, **options):
    encoder = small_vit() if encoder is None else encoder
    torch.manual_seed(seed)
    in_chans = getattr(encoder, "in_chans", 1)
    defaults = {
        "views": EvalView(image_size=SIDE, in_chans=in_chans),
        "recipe": small_recipe(),
    }
    return Classification(encoder, findings or FINDINGS, head, **(defaults | options))


def small_segmentation(encoder=None, decoder=LinearDecoder, *, seed=0, **options):
    encoder = small_vit() if encoder is None else encoder
    torch.manual_seed(seed)
    defaults = {"views": EvalView(image_size=SIDE), "recipe": small_recipe()}
    return Segmentation(encoder, STRUCTURES, decoder, **(defaults | options))


class FewPhantoms(PhantomDataModule):
    """Phantoms whose pixels are drawn once for all tests."""

    def make_source(self, rows):
        key = (self.n_images, self.phantom.size)
        self._drawn = _DRAWN.get(key)
        source = super().make_source(rows)
        _DRAWN[key] = self._drawn
        return source


def phantoms(task, n_images=60, **options):
    defaults = {"batch_size": 8, "num_workers": 0, "split": (0.6, 0.2, 0.2), "seed": 0}
    return FewPhantoms(n_images, SIDE, views=task.views, **(defaults | options))


def labelled_batches(n_batches=3, batch_size=6, in_chans=1, seed=0, findings=2):
    """Return batches as a data module makes them, with uncertain and missing labels."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(n_batches):
        labels = torch.randint(-1, 3, (batch_size, findings), generator=generator).float()
        labels[labels == 2] = torch.nan
        batches.append(
            {
                "image": torch.randn(batch_size, in_chans, SIDE, SIDE, generator=generator),
                "labels": labels,
                "image_number": torch.arange(number * batch_size, (number + 1) * batch_size),
                "readable": torch.ones(batch_size, dtype=torch.bool),
            }
        )
    return batches


def masked_batches(n_batches=3, batch_size=4, seed=0):
    """Return batches with masks, some pixels and a whole mask of which are unknown."""
    generator = torch.Generator().manual_seed(seed)
    batches = labelled_batches(n_batches, batch_size, seed=seed)
    for batch in batches:
        coarse = torch.rand(batch_size, len(STRUCTURES), 4, 4, generator=generator) < 0.4
        masks = coarse.repeat_interleave(SIDE // 4, 2).repeat_interleave(SIDE // 4, 3)
        masks = masks.to(torch.uint8)
        masks[0, 0, :7] = 255
        masks[1, 1] = 255
        masks[2, 0] = 0
        batch["masks"] = masks
        del batch["labels"]
    return batches
