"""What features are worth and how they look; nothing here trains by gradient."""

from cxrssl.analysis.attention import plot_attention, plot_attention_map
from cxrssl.analysis.comparison import compare_predictions
from cxrssl.analysis.correspondence import patch_similarity, plot_correspondence
from cxrssl.analysis.delong import DeLong, delong_test
from cxrssl.analysis.dice import dice_scores, summarise_dice
from cxrssl.analysis.embedding import embed_loader
from cxrssl.analysis.evaluation_figures import (
    plot_differences,
    plot_few_label,
    plot_few_label_curve,
    plot_reliability,
    plot_reliability_curve,
    plot_score,
    plot_scores,
)
from cxrssl.analysis.figures import (
    patch_colours,
    plot_curve,
    plot_curves,
    plot_patch_colours,
    plot_patch_pca,
)
from cxrssl.analysis.health import health_measures, plot_norms, plot_spectrum
from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.knn import multilabel_knn
from cxrssl.analysis.metrics import MultilabelScores, known_labels, multilabel_scores
from cxrssl.analysis.neighbours import label_agreement, nearest_images
from cxrssl.analysis.overlays import plot_overlay, plot_overlays
from cxrssl.analysis.reports import clinical_scores, score_reports
from cxrssl.analysis.ridge import RidgeProbe
from cxrssl.analysis.spectrum import effective_rank, feature_spread
from cxrssl.analysis.subgroups import age_bands, score_subgroups
from cxrssl.analysis.world import (
    WorldMeasures,
    measure_world,
    world_headlines,
    world_scalars,
    world_table,
)
from cxrssl.analysis.world_domain import (
    DomainSensitivity,
    VersionsAlikeError,
    domain_sensitivity,
)
from cxrssl.analysis.world_figures import plot_world
from cxrssl.analysis.world_layout import LayoutAwareness, layout_awareness
from cxrssl.analysis.world_local import LocalStructure, local_structure
from cxrssl.analysis.world_model import PredictsWorld, WorldDraws
from cxrssl.analysis.world_panels import plot_domain, plot_layout, plot_retrieval

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
    "WorldMeasures",
    "age_bands",
    "clinical_scores",
    "compare_predictions",
    "delong_test",
    "dice_scores",
    "domain_sensitivity",
    "effective_rank",
    "embed_loader",
    "feature_spread",
    "health_measures",
    "known_labels",
    "label_agreement",
    "layout_awareness",
    "local_structure",
    "measure_world",
    "multilabel_knn",
    "multilabel_scores",
    "nearest_images",
    "patch_colours",
    "patch_similarity",
    "plot_attention",
    "plot_attention_map",
    "plot_correspondence",
    "plot_curve",
    "plot_curves",
    "plot_differences",
    "plot_domain",
    "plot_few_label",
    "plot_few_label_curve",
    "plot_layout",
    "plot_norms",
    "plot_overlay",
    "plot_overlays",
    "plot_patch_colours",
    "plot_patch_pca",
    "plot_reliability",
    "plot_reliability_curve",
    "plot_retrieval",
    "plot_score",
    "plot_scores",
    "plot_spectrum",
    "plot_world",
    "score_predictions",
    "score_reports",
    "score_subgroups",
    "summarise_dice",
    "world_headlines",
    "world_scalars",
    "world_table",
]
