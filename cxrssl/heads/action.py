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

    bands: Tensor

    def __init__(self, actions: int, width: int, bands: int = 32, highest: float = 64.0) -> None:
        super().__init__()
        frequencies = math.pi * torch.linspace(1.0, highest, bands)
        self.register_buffer("bands", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(actions * (2 * bands + 1), 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, action: Tensor) -> Tensor:
        """Return the token (B, 1, d) of an action (B, A)."""
        angles = action[..., None] * self.bands  # (B, A, bands)
        features = torch.cat([angles.sin(), angles.cos(), action[..., None]], dim=-1)
        token: Tensor = self.mlp(features.flatten(1).to(action.dtype))
        return token[:, None]
