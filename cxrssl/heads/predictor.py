"""The predictor of joint-embedding prediction: from tokens that are seen to tokens that are not."""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cxrssl.backbones import PackedBlock
from cxrssl.errors import InputError
from cxrssl.heads.action import ActionToken, Policy

__all__ = ["Predictor"]

_NORM = partial(nn.LayerNorm, eps=1e-6)


class Predictor(nn.Module):
    """A narrow ViT over context tokens and mask tokens (I-JEPA; CheXWorld, section 3).

    Positions are given to it as codes of its own width, so that it knows nothing of grids, crops
    or flips. All tokens attend to each other.

    Args:
        dim: Width D of the encoder's tokens.
        actions: Numbers A that describe what was done to the context; 0 for a predictor that is not
            told.
        width: Width d of the predictor.
        depth: Number of blocks.
        heads: Number of attention heads.
        conditioning: How the action enters: ``concat`` lets an MLP turn mask token and action into
            the new mask token (published), ``residual`` adds that MLP's output to the mask token,
            ``token`` puts one more token with Fourier features of the action into the sequence.
        activation_checkpointing: Whether blocks are recomputed in the backward pass to save memory.

    Raises:
        InputError: If a number is out of range, the width is not a multiple of 4 and of the heads,
            or the conditioning is unknown.
    """

    def __init__(
        self,
        dim: int,
        actions: int = 0,
        *,
        width: int = 384,
        depth: int = 6,
        heads: int = 12,
        conditioning: Literal["concat", "residual", "token"] = "concat",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or actions < 0:
            raise InputError(
                "the predictor needs at least one block and one head and no fewer than 0 actions, "
                f"got depth {depth}, heads {heads}, actions {actions}"
            )
        if width % heads or width % 4:
            raise InputError(
                f"the predictor's width must be a multiple of 4 and of heads, got width {width} "
                f"and heads {heads}"
            )
        if conditioning not in ("concat", "residual", "token"):
            raise InputError(
                f"conditioning must be 'concat', 'residual' or 'token', got {conditioning!r}"
            )
        self.width = width
        self.actions = actions
        self.conditioning = conditioning
        self.activation_checkpointing = activation_checkpointing
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            PackedBlock(width, heads, qkv_bias=True, norm_layer=_NORM) for _ in range(depth)
        )
        self.norm = _NORM(width)
        self.proj = nn.Linear(width, dim)
        if actions and conditioning == "token":
            self.action_token = ActionToken(actions, width)
        elif actions:
            self.policy = Policy(width, actions)
        self.apply(_init)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, context: Tensor, target_code: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the predicted tokens (B, Kt, D).

        Args:
            context: Context tokens (B, Kc, d): the encoder's after ``embed``, with their positions'
                codes added.
            target_code: Codes (B, Kt, d) of the positions to predict.
            action: (B, A); needed if the predictor was built with actions.
        """
        if (0 if action is None else action.shape[-1]) != self.actions:
            raise InputError(
                f"the predictor takes {self.actions} numbers of an action, "
                f"got {'none' if action is None else action.shape[-1]}"
            )
        target = self.mask_token + target_code.to(self.mask_token.dtype)
        tokens = [context]
        if action is not None and self.conditioning == "token":
            tokens.append(self.action_token(action))
        elif action is not None:
            changed = self.policy(target, action)
            target = target + changed if self.conditioning == "residual" else changed
        x = torch.cat([*(part.to(target.dtype) for part in tokens), target], dim=1)
        *blocks, last = cast(list[PackedBlock], list(self.blocks))
        for block in blocks:
            x = self._call(block, x)
        places = torch.arange(x.shape[1] - target.shape[1], x.shape[1], device=x.device)
        wanted = self._call(last.select, x, places.expand(len(x), -1))
        predicted: Tensor = self.proj(self.norm(wanted))
        return predicted

    def _call(self, layer: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return layer(*tensors)
        output: Tensor = checkpoint(layer, *tensors, use_reentrant=False)
        return output


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
