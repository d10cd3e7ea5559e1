"""Losses: functions on tensors, one a file; modules only where there is state."""

from cxrssl.losses.centering import SoftmaxCentering
from cxrssl.losses.cross_entropy import soft_cross_entropy
from cxrssl.losses.dice import segmentation_bce, soft_dice
from cxrssl.losses.dino import dino_global_loss, dino_local_loss
from cxrssl.losses.distributed import gather_rows
from cxrssl.losses.embedding import embedding_statistics
from cxrssl.losses.ibot import ibot_loss, mask_weights
from cxrssl.losses.koleo import koleo_loss
from cxrssl.losses.multilabel import (
    UncertainPolicy,
    asymmetric_loss,
    labels_as_published,
    multilabel_bce,
    resolve_labels,
)
from cxrssl.losses.sigreg import draw_directions, sigreg
from cxrssl.losses.sinkhorn import sinkhorn
from cxrssl.losses.tokens import TokenDistance, token_loss, token_spread
from cxrssl.losses.vicreg import covariance, invariance, variance, vicreg_terms

__all__ = [
    "SoftmaxCentering",
    "TokenDistance",
    "UncertainPolicy",
    "asymmetric_loss",
    "covariance",
    "dino_global_loss",
    "dino_local_loss",
    "draw_directions",
    "embedding_statistics",
    "gather_rows",
    "ibot_loss",
    "invariance",
    "koleo_loss",
    "labels_as_published",
    "mask_weights",
    "multilabel_bce",
    "resolve_labels",
    "segmentation_bce",
    "sigreg",
    "sinkhorn",
    "soft_cross_entropy",
    "soft_dice",
    "token_loss",
    "token_spread",
    "variance",
    "vicreg_terms",
]
