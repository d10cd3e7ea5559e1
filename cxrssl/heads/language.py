"""The projector from patch tokens to the embeddings of a language model."""

from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["VisionProjector"]


class VisionProjector(nn.Module):
    """Two linear layers with a GELU between them (LLaVA-1.5, arXiv 2310.03744).

    Args:
        dim: Width d of the patch tokens.
        language_dim: Width D of the language model's embeddings.
        hidden: Width between the layers; D if left out.

    Raises:
        InputError: If a width is not positive.
    """

    def __init__(self, dim: int, language_dim: int, hidden: int | None = None) -> None:
        super().__init__()
        width = language_dim if hidden is None else hidden
        if min(dim, language_dim, width) < 1:
            raise InputError(
                "dim, language_dim and hidden must be positive, got "
                f"{dim}, {language_dim} and {width}"
            )
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, language_dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Return embeddings (B, N, D) of patch tokens (B, N, d), in their order."""
        embeddings: Tensor = self.mlp(patches)
        return embeddings
