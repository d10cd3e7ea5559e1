from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from cxrssl.analysis import multilabel_scores
from cxrssl.errors import InputError
from cxrssl.losses import asymmetric_loss, multilabel_bce
from tests.objectives.training import loader, quiet_trainer
from tests.tasks.small import (
    FINDINGS,
    HEADS,
    FewPhantoms,
    labelled_batches,
    phantoms,
    small_classification,
    small_convnet,
    small_vit,
)


def noise(n=6):
    """Return a batch of noise whose labels are known in part."""
    [batch] = labelled_batches(1, n)
    batch["labels"][batch["labels"] == -1] = 1
    return batch


def fitted(task, data=None, **options):
    """Fit a task for an epoch and return its trainer."""
    trainer = quiet_trainer(**options)
    trainer.fit(task, datamodule=phantoms(task) if data is None else data)
    return trainer


def loss_of(task, batch):
    [(_, loss)] = task.weighted_terms(batch, 0.0).values()
    return loss


@pytest.mark.parametrize("head", HEADS)
def test_missing_labels_have_no_influence(head):
    task, batch = small_classification(head=HEADS[head]).eval(), noise()
    logits = task(batch["image"])
    known = ~batch["labels"].isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], batch["labels"][known])
    assert_close(loss_of(task, batch), expected)


def test_losses_and_reductions():
    batch = noise()
    for reduction in ("mean", "sum"):
        parts = {}
        for name in ("bce", "asymmetric", "bce+asymmetric"):
            task = small_classification(loss=name, reduction=reduction)
            parts[name] = loss_of(task, batch)
        logits, labels = task(batch["image"]), batch["labels"]
        assert_close(parts["bce"], multilabel_bce(logits, labels, reduction=reduction))
        assert_close(parts["asymmetric"], asymmetric_loss(logits, labels, reduction=reduction))
        assert_close(parts["bce+asymmetric"], parts["bce"] + parts["asymmetric"])


def test_uncertain_labels_follow_the_policy_of_their_finding():
    batch = noise()
    batch["labels"][0] = -1
    named = {"cardiomegaly": "ones", "effusion": "zeros"}
    for policy, row in ((named, [1.0, 0.0]), ({"effusion": "smoothing"}, [torch.nan, 0.7])):
        task = small_classification(uncertain=policy)
        labels = batch["labels"].clone()
        labels[0] = torch.tensor(row)
        assert_close(loss_of(task, batch), multilabel_bce(task(batch["image"]), labels))


@pytest.mark.parametrize("kind", ["vit", "convnet"])
@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision_and_accumulation(kind, head):
    encoder = small_vit() if kind == "vit" else small_convnet()
    options = {"blocks": 1} if head == "glori" else {}  # levels of a ConvNet share no grid
    task = small_classification(encoder, partial(HEADS[head], **options), frozen=False)
    trainer = quiet_trainer(precision="bf16-mixed", accumulate_grad_batches=3)
    trainer.fit(task, loader(labelled_batches(6)))
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["loss"])
    assert all(p.dtype == torch.float32 for p in task.parameters())


def test_logged_scores_are_those_of_the_analysis():
    task = small_classification()
    data = phantoms(task)
    trainer = fitted(task, data)
    logits, labels = [], []
    for batch in data.val_dataloader():
        logits.append(task(batch["image"]).detach())
        labels.append(batch["labels"])
    logits, labels = torch.cat(logits), torch.cat(labels)
    scores = multilabel_scores(logits.numpy(), labels.numpy(), FINDINGS)
    for measure in ("auroc", "auprc"):
        for name, area in scores[measure].items():
            logged = trainer.callback_metrics[f"val/{measure}/{name}"]
            assert float(logged) == pytest.approx(area, rel=1e-6)
    assert_close(trainer.callback_metrics["val/loss"], multilabel_bce(logits, labels))
    trainer.test(task, datamodule=data, verbose=False)
    rows = data.shown_rows("test")
    predictions = task.predictions
    assert predictions["image_number"].tolist() == list(range(len(rows)))
    np.testing.assert_array_equal(predictions["labels"], rows[FINDINGS].to_numpy(np.float32))


class OneClass(FewPhantoms):
    """No validation or test image has a finding."""

    def make_index(self):
        index = super().make_index()
        index.loc[index["split"] != "train", FINDINGS] = 0
        return index


def one_class(task):
    return OneClass(60, 48, views=task.views, batch_size=8, num_workers=0, split=(0.6, 0.2, 0.2))


def test_one_class_in_validation_is_a_warning_and_what_monitors_it_goes_on(tmp_path):
    task = small_classification()
    keep = ModelCheckpoint(tmp_path, monitor="val/auroc/macro", mode="max")
    with pytest.warns(UserWarning, match="Nothing can be scored on the validation images"):
        fitted(
            task,
            one_class(task),
            callbacks=[keep],
            enable_checkpointing=True,
        )
    assert list(tmp_path.glob("*.ckpt"))


def test_one_class_in_the_test_is_one_sentence():
    task = small_classification()
    data = one_class(task)
    quiet_trainer().test(task, datamodule=data, verbose=False)
    with pytest.raises(InputError, match="no finding has both positive and negative test images"):
        task.results(data)


@pytest.mark.parametrize("head", HEADS)
def test_cached_training_equals_uncached_training(head, tmp_path):
    logged = []
    for options in ({}, {"cache": str(tmp_path), "cache_dtype": "float32"}):
        task = small_classification(head=HEADS[head], **options)
        trainer = fitted(task, phantoms(task))
        logged.append({name: value.item() for name, value in trainer.callback_metrics.items()})
    assert logged[1] == pytest.approx(logged[0], rel=1e-4, abs=1e-6, nan_ok=True)


def test_images_that_could_not_be_read_are_neither_scored_nor_predicted():
    task, batch = small_classification(), noise()
    batch["readable"][2] = False
    trainer = quiet_trainer()
    trainer.test(task, loader([batch]), verbose=False)
    assert task.predictions["image_number"].tolist() == [0, 1, 3, 4, 5]
    with torch.no_grad():
        table = pd.DataFrame(task.name_predictions(task.predict_step(batch, 0)))
    assert list(table) == ["image_number", *FINDINGS]
    assert table.set_index("image_number").isna().all(axis=1).tolist() == [
        number == 2 for number in range(6)
    ]


def test_findings_the_index_lacks_are_named():
    task = small_classification(findings=["effusion", "hernia"])
    with pytest.raises(InputError, match="hernia"):
        fitted(task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"findings": ["a", "a"]}, "at least one name, each once"),
        ({"uncertain": {"hernia": "ones"}}, "uncertain names hernia"),
        ({"uncertain": "maybe"}, "uncertain must be"),
        ({"loss": "focal"}, "loss must be"),
        ({"reduction": "max"}, "reduction must be"),
        ({"select": "f1"}, "select must be"),
        ({"cache_dtype": "int8"}, "cache_dtype must be"),
        ({"cache": "somewhere", "frozen": False}, "need a frozen encoder"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small_classification(**options)
