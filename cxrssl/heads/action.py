"""How a predictor is told what was done to an image."""

import math

import torch
from torch import Tensor, nn

__all__ = ["ActionToken", "Policy"]


class Policy(nn.Module):
    """The MLP of CheXWorld that makes mask tokens depend on an action.

    Args:
        width: Width d of the tokens.
        actions: Numbers A of an action.
    """

    def __init__(self, width: int, actions: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width + actions, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )

    def forward(self, tokens: Tensor, action: Tensor) -> Tensor:
        """Return tokens (B, K, d) made from tokens (B, K, d) and the action (B, A) of all K."""
        repeated = action[:, None].expand(-1, tokens.shape[1], -1).to(tokens.dtype)
        changed: Tensor = self.mlp(torch.cat([tokens, repeated], dim=-1))
        return changed


class ActionToken(nn.Module):
    """An action as one more token, through Fourier features.

    Args:
        actions: Numbers A of an action.
        width: Width d of the token.
        bands: Frequencies, spaced evenly from 1 to ``highest`` times pi.
        highest: Largest frequency in units of pi.
    """

    def __init__(self, actions: int, width: int, bands: int = 32, highest: float = 64.0) -> None:
        super().__init__()
        self.bands, self.highest = bands, highest
        self.mlp = nn.Sequential(
            nn.Linear(actions * (2 * bands + 1), 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, action: Tensor) -> Tensor:
        """Return the token (B, 1, d) of an action (B, A)."""
        dtype = next(self.mlp.parameters()).dtype
        token: Tensor = self.mlp(self.features(action).to(dtype))
        return token[:, None]

    def features(self, action: Tensor) -> Tensor:
        """Return sines, cosines and the number itself for each number of an action (B, A)."""
        # In float32 whatever the weights' precision: the highest angles reach hundreds.
        numbers = action.float()[..., None]
        frequencies = torch.linspace(
            1.0, self.highest, self.bands, dtype=torch.float32, device=action.device
        )
        angles = math.pi * numbers * frequencies  # (B, A, bands)
        return torch.cat([angles.sin(), angles.cos(), numbers], dim=-1).flatten(1)
