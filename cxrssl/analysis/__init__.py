"""What features are worth and how they look; nothing here trains by gradient."""

from cxrssl.analysis.embedding import embed_loader
from cxrssl.analysis.figures import plot_curves, plot_patch_pca
from cxrssl.analysis.knn import multilabel_knn
from cxrssl.analysis.metrics import MultilabelScores, known_labels, multilabel_scores
from cxrssl.analysis.ridge import RidgeProbe
from cxrssl.analysis.spectrum import effective_rank, feature_spread
from cxrssl.analysis.world import world_headlines, world_scalars, world_table
from cxrssl.analysis.world_domain import (
    DomainSensitivity,
    VersionsAlikeError,
    domain_sensitivity,
)
from cxrssl.analysis.world_figures import plot_world
from cxrssl.analysis.world_layout import LayoutAwareness, layout_awareness
from cxrssl.analysis.world_local import LocalStructure, local_structure
from cxrssl.analysis.world_model import PredictsWorld, WorldDraws

__all__ = [
    "DomainSensitivity",
    "LayoutAwareness",
    "LocalStructure",
    "MultilabelScores",
    "PredictsWorld",
    "RidgeProbe",
    "VersionsAlikeError",
    "WorldDraws",
    "domain_sensitivity",
    "effective_rank",
    "embed_loader",
    "feature_spread",
    "known_labels",
    "layout_awareness",
    "local_structure",
    "multilabel_knn",
    "multilabel_scores",
    "plot_curves",
    "plot_patch_pca",
    "plot_world",
    "world_headlines",
    "world_scalars",
    "world_table",
]
