"""Where the class token of a ViT looks in its last block."""

import torch
from torch import Tensor

from cxrssl.backbones.vit import ViT
from cxrssl.errors import InputError

__all__ = ["class_attention"]


def class_attention(vit: ViT, images: Tensor) -> Tensor:
    """Return the last block's attention weights from class token to patches, (B, H, N), float32.

    These are the maps of DINO (arXiv 2104.14294, figure 1). The weights of a head, with those of
    class token and registers, which are left out, sum to 1.

    Args:
        vit: A ViT with a class token.
        images: (B, C, H, W).

    Raises:
        InputError: If the ViT has no class token, or the images do not fit its patches.
    """
    if not vit.has_class_token:
        raise InputError("the encoder has no class token, whose attention could be shown")
    before = [vit.depth - 2] if vit.depth > 1 else []
    tokens = vit.levels(images, before, norm=False, stem=not before)[0]
    assert tokens.cls is not None  # has_class_token
    block = vit.vit.blocks[-1]
    x = block.norm1(torch.cat([tokens.cls[:, None], tokens.registers, tokens.patches], dim=1))
    attn = block.attn
    q, k, _ = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attn.q_norm(q[:, :, :1]).float(), attn.k_norm(k).float()
    weights = (q @ k.transpose(2, 3) * attn.scale).softmax(-1)[:, :, 0]
    patches: Tensor = weights[..., 1 + tokens.registers.shape[1] :]
    return patches
