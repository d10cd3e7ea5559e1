import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.classification import CXRLT_FINDINGS, GLoRI, load_glori_weights
from tests.heads.classification.official import PREFIX, official_tensors, save_official
from tests.heads.classification.tokens import random_levels


def small(findings=5, **options):
    defaults = {"width": 32, "hidden": 24, "class_skip": False}
    return GLoRI([12] * 4, findings, **defaults | options).eval()


def tensors(seed=0, **sizes):
    return official_tensors(torch.Generator().manual_seed(seed), **sizes)


def test_findings_are_those_of_cxrlt():
    assert len(set(CXRLT_FINDINGS)) == 40
    assert list(CXRLT_FINDINGS) == sorted(CXRLT_FINDINGS)


def test_attention_is_unpacked_as_torch_packs_it(tmp_path):
    official = tensors()
    head = small()
    load_glori_weights(head, save_official(tmp_path / "glori.pth", {PREFIX: official}))
    reference = torch.nn.MultiheadAttention(32, 8, batch_first=True).eval()
    prefix = "layers.0.multihead_attn."
    reference.load_state_dict(
        {name[len(prefix) :]: t for name, t in official.items() if name.startswith(prefix)}
    )
    queries, keys = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    out, weights = reference(queries, keys, keys, average_attn_weights=False)
    assert_close(head.attend(queries, keys), out, atol=1e-4, rtol=1e-4)
    assert_close(head.attend.weights(queries, keys), weights, atol=1e-5, rtol=1e-4)


def test_class_tokens_come_before_the_query(tmp_path):
    official = tensors(shared=48)
    head = small(class_skip=True)
    load_glori_weights(head, save_official(tmp_path / "glori.pth", {PREFIX: official}))
    levels = random_levels(4)
    changed = [level._replace(cls=level.cls + 1) for level in levels]
    expected = official["duplicate_pooling"][:, :48, 0].sum(1)
    assert_close(head(changed) - head(levels), expected.expand(3, 5), atol=1e-4, rtol=1e-4)


def test_some_findings_have_the_logits_of_all(tmp_path):
    path = save_official(tmp_path / "glori.pth", {PREFIX: tensors(findings=40)})
    names = ["Pneumothorax", "Edema", "Tuberculosis"]
    everything, chosen = small(40), small(3)
    load_glori_weights(everything, path)
    load_glori_weights(chosen, path, findings=names)
    levels = random_levels(4)
    columns = [CXRLT_FINDINGS.index(name) for name in names]
    assert_close(chosen(levels), everything(levels)[:, columns], atol=1e-5, rtol=1e-5)


def test_one_of_several_heads(tmp_path):
    other = PREFIX.replace("0_0001000000", "0_0100000000")
    path = save_official(tmp_path / "glori.pth", {PREFIX: tensors(0), other: tensors(1)})
    head = small()
    with pytest.raises(InputError, match=r"holds 2 heads: set which .*lr=0_0001.*lr=0_01"):
        load_glori_weights(head, path)
    with pytest.raises(InputError, match="holds 0 heads with 'lr=1' in their name"):
        load_glori_weights(head, path, which="lr=1")
    load_glori_weights(head, path, which="lr=0_01")
    assert_close(head.queries, tensors(1)["query_embed.weight"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"findings": 4}, r"queries of shape \(5, 32\), the head of \(4, 32\)"),
        ({"class_skip": True}, r"classifier.weight of shape \(5, 32\), the head of \(5, 80\)"),
        ({"blocks": 3}, r"embed.weight of shape \(32, 48\), the head of \(32, 36\)"),
        ({"heads": 4}, "published GLoRI has 8 attention heads, got 4"),
        ({"temperature": True}, "neither temperature nor pyramid"),
    ],
)
def test_another_head_is_refused(options, match, tmp_path):
    path = save_official(tmp_path / "glori.pth", {PREFIX: tensors()})
    with pytest.raises(InputError, match=match):
        load_glori_weights(small(**options), path)


def test_other_files_and_names_are_refused(tmp_path):
    head = small()
    path = tmp_path / "other.pth"
    torch.save({"model": {"linear.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(InputError, match="holds no head of GLoRI"):
        load_glori_weights(head, path)
    torch.save({"model": {"decoder.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(InputError, match=r"another head than GLoRI: .*unknown \['weight'\]"):
        load_glori_weights(head, path)
    save_official(path, {PREFIX: tensors()})
    with pytest.raises(InputError, match="is of 5 findings and not of the 40"):
        load_glori_weights(head, path, findings=CXRLT_FINDINGS[:5])
    save_official(path, {PREFIX: tensors(findings=40)})
    with pytest.raises(InputError, match=r"has no \['Effusion'\], only Adenopathy"):
        load_glori_weights(head, path, findings=["Effusion"])


def test_a_head_is_made_with_published_weights(tmp_path):
    path = save_official(tmp_path / "glori.pth", {PREFIX: tensors()})
    loaded = small()
    load_glori_weights(loaded, path)
    levels = random_levels(4)
    assert_close(small(weights=str(path))(levels), loaded(levels), atol=0, rtol=0)
