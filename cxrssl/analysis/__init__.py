"""What features are worth and how they look; nothing here trains by gradient."""

from cxrssl.analysis.embedding import embed_loader
from cxrssl.analysis.figures import plot_curves, plot_patch_pca
from cxrssl.analysis.knn import multilabel_knn
from cxrssl.analysis.metrics import MultilabelScores, known_labels, multilabel_scores
from cxrssl.analysis.ridge import RidgeProbe
from cxrssl.analysis.spectrum import effective_rank, feature_spread

__all__ = [
    "MultilabelScores",
    "RidgeProbe",
    "effective_rank",
    "embed_loader",
    "feature_spread",
    "known_labels",
    "multilabel_knn",
    "multilabel_scores",
    "plot_curves",
    "plot_patch_pca",
]
