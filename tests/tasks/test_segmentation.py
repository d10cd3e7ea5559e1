import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from cxrssl.analysis import dice_scores
from cxrssl.errors import InputError
from cxrssl.heads import UPerNetDecoder
from cxrssl.losses import segmentation_bce, soft_dice
from tests.objectives.training import loader, quiet_trainer
from tests.tasks.small import (
    DECODERS,
    STRUCTURES,
    masked_batches,
    phantoms,
    small_convnet,
    small_segmentation,
    small_vit,
)

ON_CONVNET = [name for name in DECODERS if name != "unet"]  # whose maps are not at 1/16


def fitted(task, batches=None, **options):
    trainer = quiet_trainer(**options)
    trainer.fit(task, loader(masked_batches() if batches is None else batches))
    return trainer


def total(task, batch):
    return sum(weight * term.item() for weight, term in task.weighted_terms(batch, 0.0).values())


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [(small_vit, name) for name in DECODERS] + [(small_convnet, name) for name in ON_CONVNET],
)
@pytest.mark.parametrize("frozen", [True, False])
def test_every_decoder_learns(encoder, decoder, frozen):
    task = small_segmentation(encoder(), DECODERS[decoder], frozen=frozen)
    batches = masked_batches(1) * 12
    before = total(task, batches[0])
    fitted(task, batches)
    assert total(task, batches[0]) < before
    assert all(p.grad is None for p in task.backbone.parameters()) or not frozen


@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_and_accumulation(decoder):
    task = small_segmentation(decoder=DECODERS[decoder], frozen=False)
    trainer = fitted(task, precision="bf16-mixed", accumulate_grad_batches=3)
    assert trainer.global_step == 1
    assert torch.isfinite(trainer.callback_metrics["loss"])
    assert {p.dtype for p in task.parameters()} == {torch.float32}


def test_terms_are_those_of_the_known_pixels():
    batch = masked_batches(1)[0]
    task = small_segmentation(dice_weight=2.0, bce_weight=0.5).eval()
    terms = task.weighted_terms(batch, 0.0)
    logits, masks = task(batch["image"]), batch["masks"]
    expected = {
        "dice": (2.0, soft_dice(logits, masks)),
        "bce": (0.5, segmentation_bce(logits, masks)),
    }
    assert terms == expected
    known = masks != 255
    slow = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], masks[known].float())
    assert_close(terms["bce"][1], slow)
    assert list(small_segmentation(dice_weight=0.0).weighted_terms(batch, 0.0)) == ["bce"]
    assert list(small_segmentation(bce_weight=0.0).weighted_terms(batch, 0.0)) == ["dice"]


def test_unknown_pixels_have_no_gradient():
    task, batch = small_segmentation().eval(), masked_batches(1)[0]
    images = batch["image"].clone().requires_grad_()
    logits = task.decoder(task.backbone.levels(images, task.level_numbers), images)
    sum(weight * term for weight, term in task._terms(logits, batch["masks"]).values()).backward()
    batch["masks"][:] = 255
    assert images.grad.any()
    terms = task.weighted_terms(batch, 0.0)
    assert [term.item() for _, term in terms.values()] == [0.0, 0.0]


def test_the_auxiliary_head_is_weighted_and_for_training_alone():
    task = small_segmentation(decoder=DECODERS["upernet"]).eval()
    batch = masked_batches(1)[0]
    terms = task.weighted_terms(batch, 0.0)
    assert {name: weight for name, (weight, _) in terms.items()} == {
        "dice": 1.0,
        "bce": 1.0,
        "auxiliary_dice": 0.4,
        "auxiliary_bce": 0.4,
    }
    logits = task.decoder.auxiliary(task.levels(batch["image"]), batch["image"])
    assert_close(terms["auxiliary_dice"][1], soft_dice(logits, batch["masks"]))
    logged = quiet_trainer().validate(task, loader([batch]), verbose=False)[0]["val/loss"]
    assert logged == pytest.approx((terms["dice"][1] + terms["bce"][1]).item(), rel=1e-5)
    plain = small_segmentation(decoder=lambda *a: UPerNetDecoder(*a, channels=8))
    assert list(plain.weighted_terms(batch, 0.0)) == ["dice", "bce"]


def test_masks_are_thresholded_and_small_ones_left_out():
    task = small_segmentation(threshold=0.7, fewest_pixels=3)
    logits = torch.full((2, 2, 4, 4), -9.0)
    logits[0, 0, 0, :3] = 1.0  # of probability 0.73
    logits[0, 1, 0, :2] = 1.0
    logits[1, 0] = 0.8  # of probability 0.69
    masks = task.masks_of(logits)
    assert masks.sum((2, 3)).tolist() == [[3, 0], [0, 0]]


def slow_means(scores, empty):
    """Return the mean of each structure over all images, and over those that show it."""
    both = []
    for left_out in (np.zeros_like(empty), empty):
        columns = [
            [s for s, skip in zip(scores[:, k], left_out[:, k], strict=True) if not skip and s == s]
            for k in range(scores.shape[1])
        ]
        both.append([np.mean(column) for column in columns])
    return both


def test_logged_dice_is_the_mean_over_images():
    task, batches = small_segmentation().eval(), masked_batches()
    images, masks = (torch.cat([batch[name] for batch in batches]) for name in ("image", "masks"))
    with torch.no_grad():
        predicted = (task(images).sigmoid() >= 0.5).numpy()
    scores = dice_scores(predicted, masks.numpy())
    assert np.isnan(scores).any()
    means = slow_means(scores, ~(masks.numpy() == 1).any((2, 3)))
    for split in ("val", "test"):
        trainer = quiet_trainer()
        run = trainer.validate if split == "val" else trainer.test
        [logged] = run(task, loader(batches), verbose=False)
        for measure, values in zip(("dice", "dice_where_present"), means, strict=True):
            for name, value in zip([*STRUCTURES, "macro"], [*values, np.mean(values)], strict=True):
                assert logged[f"{split}/{measure}/{name}"] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(task.predictions["dice"], scores, rtol=1e-6)


def test_images_that_could_not_be_read_are_not_measured_nor_shown():
    task, batches = small_segmentation(examples=5).eval(), masked_batches()
    whole = quiet_trainer().validate(task, loader(batches[:2]), verbose=False)[0]
    for number in (0, 2):
        batches[2]["readable"][number] = False
    batches[2]["masks"][~batches[2]["readable"]] = 255
    blank = {**batches[2], "readable": torch.zeros(4, dtype=torch.bool)}
    blank["masks"] = torch.full_like(blank["masks"], 255)
    again = quiet_trainer().validate(task, loader([*batches[:2], blank]), verbose=False)[0]
    assert again == pytest.approx(whole)
    # Uneven batches and images that are shown twice make no difference.
    parts = [{name: value[:1] for name, value in batches[0].items()}, *batches[:2]]
    again = quiet_trainer().validate(task, loader(parts), verbose=False)[0]
    assert again == pytest.approx(whole)
    images, masks = (torch.cat([b[name] for b in batches[:2]]) for name in ("image", "masks"))
    logits = task(images)
    loss = soft_dice(logits, masks) + segmentation_bce(logits, masks)
    assert whole["val/loss"] == pytest.approx(loss.item(), rel=1e-5)
    quiet_trainer().test(task, loader(batches[::-1]), verbose=False)
    assert task.predictions["image_number"].tolist() == [*range(8), 9, 11]
    grey = torch.cat([batches[2]["image"][[1, 3], 0], batches[1]["image"][:3, 0]])
    expected = (grey * task.views.std + task.views.mean).clamp(0, 1)
    np.testing.assert_allclose(task.examples["image"], expected.numpy(), rtol=1e-6)
    assert len(task.examples["truth"]) == len(task.examples["prediction"]) == 5
    table = pd.DataFrame(task.name_predictions(task.predict_step(batches[2], 0)))
    assert list(table) == ["image_number", *STRUCTURES]
    assert table["lungs"].isna().tolist() == [True, False, True, False]
    areas = task.masks_of(task(batches[2]["image"]))[1].mean((1, 2))
    np.testing.assert_allclose(table.loc[1, STRUCTURES].to_numpy(float), areas, rtol=1e-6)


def test_results_of_a_test_on_a_data_module():
    task = small_segmentation()
    data = phantoms(task, n_images=12, batch_size=4)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    results, rows = task.results(data), data.shown_rows("test")
    assert results.tables["dice"]["path"].tolist() == rows["path"].tolist()
    means = results.tables["scores"].set_index(["structure", "convention"])["mean"]
    for name in (*STRUCTURES, "macro"):
        logged = trainer.callback_metrics[f"test/dice/{name}"].item()
        assert means[name, "all images"] == pytest.approx(logged, rel=1e-5)
    assert list(results.figures) == ["overlays"]
    assert "lungs" in results.text
    assert list(task.results(data).tables) == ["scores", "dice"]
    task.n_examples = 0
    trainer.test(task, datamodule=data, verbose=False)
    assert not task.results(data).figures


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0}, r"threshold must be in \(0, 1\), got 1.0"),
        ({"dice_weight": 0.0, "bce_weight": 0.0}, "nor both 0, got 0.0 and 0.0"),
        ({"bce_weight": -1.0}, "must not be negative, nor both 0, got 1.0 and -1.0"),
        ({"fewest_pixels": -1}, "must not be negative, got -1 and 8"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small_segmentation(**options)


def test_structures_the_index_lacks_are_named():
    task = small_segmentation(decoder=DECODERS["linear"])
    task.views.targets = task.views.targets._replace(structures=("lungs", "ribs"))
    with pytest.raises(InputError, match="the index has no mask 'ribs'"):
        quiet_trainer().fit(task, datamodule=phantoms(task))
