"""What features are worth and how they look; nothing here trains by gradient."""

from cxrssl.analysis.attention import plot_attention
from cxrssl.analysis.comparison import compare_predictions
from cxrssl.analysis.delong import DeLong, delong_test
from cxrssl.analysis.dice import dice_scores, summarise_dice
from cxrssl.analysis.embedding import embed_loader
from cxrssl.analysis.figures import plot_curves, plot_patch_pca
from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.knn import multilabel_knn
from cxrssl.analysis.metrics import MultilabelScores, known_labels, multilabel_scores
from cxrssl.analysis.overlays import plot_overlays
from cxrssl.analysis.reports import clinical_scores, score_reports
from cxrssl.analysis.ridge import RidgeProbe
from cxrssl.analysis.spectrum import effective_rank, feature_spread
from cxrssl.analysis.subgroups import age_bands, score_subgroups
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
    "DeLong",
    "DomainSensitivity",
    "LayoutAwareness",
    "LocalStructure",
    "MultilabelScores",
    "PredictsWorld",
    "RidgeProbe",
    "VersionsAlikeError",
    "WorldDraws",
    "age_bands",
    "clinical_scores",
    "compare_predictions",
    "delong_test",
    "dice_scores",
    "domain_sensitivity",
    "effective_rank",
    "embed_loader",
    "feature_spread",
    "known_labels",
    "layout_awareness",
    "local_structure",
    "multilabel_knn",
    "multilabel_scores",
    "plot_attention",
    "plot_curves",
    "plot_overlays",
    "plot_patch_pca",
    "plot_world",
    "score_predictions",
    "score_reports",
    "score_subgroups",
    "summarise_dice",
    "world_headlines",
    "world_scalars",
    "world_table",
]
