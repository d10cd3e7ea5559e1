"""GLoRI, CheXFound's head of global and local representations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.classification.attention import CrossAttention, PerFindingLinear
from cxrssl.heads.classification.base import ClassificationHead
from cxrssl.heads.classification.pyramid import PatchPyramid

__all__ = ["GLoRI"]


class GLoRI(ClassificationHead):
    """A query for each finding gathers from merged patch tokens; the class tokens join behind it.

    CheXFound (Yang et al., 2025, arXiv 2502.05142), as its code has it. With the patch tokens X and
    the class tokens c of the last levels, next to each other, and one query E_f a finding:

        M = ReLU(Linear(X));  t = LN(E + Dropout(E));  t = LN(t + Dropout(attention(t, M)));
        t = LN(t + Dropout(Linear(Dropout(ReLU(Linear(t))))));  logit_f = w_f . [c, t_f] + b_f.

    There is no self-attention and no position. The queries are standard normal and never trained,
    a fixed random code for each finding that the trained projections read. Without class tokens,
    mean patch tokens take their place.

    Args:
        dims: Widths of all levels of the encoder.
        n_findings: Number F of findings.
        blocks: How many of the last levels are read.
        width: Width d of queries and merged patches.
        heads: Number H of attention heads.
        hidden: Width of the MLP's hidden layer.
        dropout: Probability of every dropout, that of attention weights included.
        class_skip: Whether the classifier sees the class tokens, as in the headline results and the
            published command; the released weights are of a head without.
        learn_queries: Whether the queries are trained.
        temperature: Experimental, see below: whether each image sets how sharp its attention is.
        pyramid: Experimental, see below: sides of the squares of patches that are averaged, e.g.
            ``(8, 4, 2)``; none by default.
        weights: The official ``glori.pth``; see :func:`load_glori_weights`.

    The two experimental options follow the description in the paper's second version, of which no
    code was released, and numbers made with them are not CheXFound's. ``temperature`` multiplies
    the attention logits of an image by exp(tanh(MLP(mean of M))), which starts at 1. ``pyramid``
    adds coarse patches to M, see :class:`PatchPyramid`.

    Raises:
        InputError: If a number is out of range, the heads do not divide the width, or the weights
            do not fit.
    """

    queries: Tensor

    def __init__(
        self,
        dims: Sequence[int],
        n_findings: int,
        *,
        blocks: int = 4,
        width: int = 768,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        class_skip: bool = True,
        learn_queries: bool = False,
        temperature: bool = False,
        pyramid: Sequence[int] = (),
        weights: str | None = None,
    ) -> None:
        super().__init__(dims, n_findings, blocks=blocks)
        if width < 1 or hidden < 1 or not 0 <= dropout < 1:
            raise InputError(
                "GLoRI needs positive widths and a dropout from 0 to below 1, got "
                f"width {width}, hidden {hidden}, dropout {dropout}"
            )
        merged = sum(self.dims)
        self.class_skip = class_skip
        queries = torch.randn(n_findings, width)
        if learn_queries:
            self.queries = nn.Parameter(queries)
        else:
            self.register_buffer("queries", queries)
        self.embed = nn.Linear(merged, width)
        self.pyramid = PatchPyramid(merged, width, pyramid) if pyramid else None
        self.temperature = _temperature(width) if temperature else None
        self.dropout = nn.Dropout(dropout)
        self.norm_queries = nn.LayerNorm(width)
        self.attend = CrossAttention(width, heads, dropout=dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.norm_mlp = nn.LayerNorm(width)
        self.classifier = PerFindingLinear(n_findings, width, merged if class_skip else 0)
        self._init_attention(width)
        if weights is not None:
            from cxrssl.heads.classification.glori_weights import load_glori_weights

            load_glori_weights(self, weights)

    def forward(self, levels: Sequence[Tokens]) -> Tensor:
        """Return logits (B, F), see :meth:`ClassificationHead.forward`.

        Raises:
            InputError: If the number of levels is another, or their patches do not match.
        """
        merged = self._merge(levels)
        queries = self._queries(len(merged))
        gathered = self.attend(queries, merged, self._scale(merged))
        x = self.norm_attention(queries + self.dropout(gathered))
        x = self.norm_mlp(x + self.dropout(self.mlp(x)))  # (B, F, d)
        shared = torch.cat([level.image for level in levels], 1) if self.class_skip else None
        logits: Tensor = self.classifier(x, shared)
        return logits

    def attention(self, levels: Sequence[Tokens]) -> Tensor:
        """Return where each finding looks, attention weights (B, H, F, N) in float32.

        Those of :meth:`forward` in evaluation mode. Each head's weights sum to 1 over the patches;
        the published maps are their mean over heads.

        Raises:
            InputError: If the number of levels is another, or their patches do not match.
        """
        merged = self._merge(levels)
        return self.attend.weights(self._queries(len(merged)), merged, self._scale(merged))

    def _merge(self, levels: Sequence[Tokens]) -> Tensor:
        """Return merged patches (B, N, d)."""
        self._check_count(levels)
        shapes = [(level.grid, level.patches.shape[1]) for level in levels]
        if len(set(shapes)) > 1:
            raise InputError(
                "GLoRI merges levels patch by patch, which needs one grid for all of them, got "
                f"grids {[grid for grid, _ in shapes]} with {[n for _, n in shapes]} patches: "
                "set blocks to 1, or use an encoder whose last levels share a grid"
            )
        patches = torch.cat([level.patches for level in levels], 2)
        merged: Tensor = self.embed(patches).relu()
        return merged if self.pyramid is None else merged + self.pyramid(patches, levels[0].grid)

    def _queries(self, batch: int) -> Tensor:
        """Return normalised queries (B, F, d); (1, F, d) where all images have the same."""
        # What is dropped in training differs from image to image.
        queries = self.queries.expand(batch if self.training else 1, -1, -1)
        normalised: Tensor = self.norm_queries(queries + self.dropout(queries))
        return normalised

    def _scale(self, merged: Tensor) -> Tensor | None:
        """Return what the attention logits of each image are multiplied by, (B,)."""
        return None if self.temperature is None else self.temperature(merged.mean(1))[:, 0].exp()

    def _init_attention(self, width: int) -> None:
        # As torch.nn.MultiheadAttention starts: q, k and v count as one matrix (3 d, d).
        bound = (6 / (4 * width)) ** 0.5
        for linear in (self.attend.q, self.attend.kv):
            nn.init.uniform_(linear.weight, -bound, bound)
        for linear in (self.attend.q, self.attend.kv, self.attend.proj):
            nn.init.zeros_(linear.bias)


def _temperature(width: int) -> nn.Sequential:
    """Return the MLP from a mean token (B, d) to the logarithm (B, 1) of the scale."""
    last = nn.Linear(max(width // 4, 1), 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, last.in_features), nn.ReLU(), last, nn.Tanh())
