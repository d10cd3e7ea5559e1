import pytest
import torch

from cxrssl.backbones import ViT
from cxrssl.backbones.class_attention import class_attention
from cxrssl.errors import InputError


def vit(**options):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "width": 24, "depth": 3, "heads": 4}
    return ViT("vit_tiny", **(sizes | options)).eval()


@pytest.mark.parametrize("depth", [1, 3])
def test_are_the_weights_that_make_the_class_token(depth):
    model, images = vit(depth=depth, registers=2), torch.randn(2, 1, 32, 32)
    seen = {}
    attn = model.vit.blocks[-1].attn

    def keep(module, inputs, output):
        q, k, v = module.qkv(inputs[0]).unflatten(-1, (3, 4, 6)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.mT / 6**0.5, -1)
        seen["weights"] = weights[:, :, 0, 3:]
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module.proj(mixed), output)

    with torch.no_grad():
        attn.register_forward_hook(keep)
        model(images)
        weights = class_attention(model, images)
    assert weights.shape == (2, 4, 16)
    torch.testing.assert_close(weights, seen["weights"])
    assert (weights.sum(-1) < 1).all()


def test_a_vit_without_a_class_token_is_refused():
    with pytest.raises(InputError, match="no class token"):
        class_attention(vit(class_token=False), torch.zeros(1, 1, 32, 32))
