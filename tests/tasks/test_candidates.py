import re
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import ClassificationHead, LinearProbe
from cxrssl.schedules import Schedule
from cxrssl.tasks.candidates import Candidate, Candidates, make_candidates
from tests.objectives.training import loader, quiet_trainer
from tests.tasks.small import (
    HEADS,
    labelled_batches,
    phantoms,
    small_classification,
    small_recipe,
)

RATES = [1e-3, 3e-2]
FALLING = small_recipe(Schedule(1e-2, final=0.0, warmup=0.5))


class Broken(ClassificationHead):
    """A head whose logits, or only their gradient, are not finite from some call on."""

    def __init__(self, dims, n_findings, *, start=1, gradient=False):
        super().__init__(dims, n_findings)
        self.linear = nn.Linear(self.dims[-1], n_findings)
        self.start, self.gradient, self.calls = start, gradient, 0

    def forward(self, levels):
        logits = self.linear(levels[-1].patches.mean(1))
        self.calls += self.training
        if not self.training or self.calls < self.start:
            return logits
        if self.gradient:
            # The value is finite, and its slope at 0 is not.
            return logits + (logits - logits.detach()).abs().sqrt()
        return logits * torch.inf


def trained(batches, **options):
    """Return a task after an epoch, and what each step's loss was."""
    task = small_classification(**({"recipe": FALLING} | options))
    losses = []
    original = task.training_step
    task.training_step = lambda *a: losses.append(original(*a)) or losses[-1]
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(task, loader(batches), loader(labelled_batches(2, seed=9)))
    return task, trainer, torch.stack(losses).detach()


def assert_same_head(one, other):
    for (name, value), wanted in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, wanted), name


def test_each_learns_what_it_would_learn_alone():
    batches = labelled_batches()
    together, _, total = trained(batches, candidates=HEADS, learning_rates=RATES)
    names = [f"{name}_lr{rate:g}" for name in HEADS for rate in RATES]
    assert together.heads.names == names
    losses = 0
    for number, (head, rate) in enumerate(
        (head, rate) for head in HEADS.values() for rate in RATES
    ):
        recipe = small_recipe(Schedule(rate, final=0.0, warmup=0.5))
        alone, _, each = trained(batches, head=head, recipe=recipe)
        losses = losses + each
        for name, value in alone.heads[0].state_dict().items():
            assert_close(together.heads[number].state_dict()[name], value, atol=1e-6, rtol=1e-5)
    assert_close(total, losses)


def test_learning_rates_follow_the_schedule_of_the_recipe():
    task = small_classification(recipe=FALLING, learning_rates=RATES)
    factors = [task.rate_factor(f"heads.{number}.classifier.weight") for number in range(2)]
    assert factors == pytest.approx([0.1, 3.0])
    assert task.rate_factor("backbone.vit.norm.weight") == 1.0


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("start", [1, 3])
def test_a_broken_one_is_dropped_and_the_others_go_on_as_without_it(gradient, start):
    batches = labelled_batches(4)
    broken = partial(Broken, start=start, gradient=gradient)
    what = "gradient" if gradient else "loss"
    with pytest.warns(UserWarning, match=f"The {what} of candidate broken is not finite any more"):
        task, trainer, _ = trained(batches, candidates={"broken": broken, **HEADS})
    assert task.heads.alive.tolist() == [False, True, True, True]
    assert not any(parameter.any() for parameter in task.heads[0].parameters())
    assert trainer.callback_metrics["health/nonfinite_steps"] == 0
    without, other, _ = trained(batches, candidates=HEADS)
    assert task.chosen_name == without.chosen_name
    for number in range(3):
        assert_same_head(task.heads[number + 1], without.heads[number])
    logged, expected = trainer.callback_metrics, other.callback_metrics
    for name in HEADS:
        assert logged[f"candidates/auroc/{name}"] == expected[f"candidates/auroc/{name}"]
    assert logged["val/loss"] == expected["val/loss"]


def test_a_rate_that_is_too_high_is_dropped_and_stays_at_zero_under_momentum_and_decay():
    batches, recipe = labelled_batches(15), small_recipe(1e-3, weight_decay=Schedule(0.1))
    with pytest.warns(UserWarning, match="candidate LinearProbe_lr1e\\+06 is not finite any more"):
        task, _, losses = trained(batches, learning_rates=[1e-3, 1e6], recipe=recipe)
    assert torch.isfinite(losses).all()
    assert not any(parameter.any() for parameter in task.heads[1].parameters())
    alone, *_ = trained(batches, recipe=recipe)
    assert_same_head(task.heads[0], alone.heads[0])


def test_what_breaks_all_of_them_is_the_runs_own_matter():
    batches = labelled_batches(4)
    batches[1]["image"][2] = torch.nan
    batches[1]["labels"][2] = 1
    with pytest.warns(UserWarning, match="Step [15] was skipped: its loss is not finite"):
        task, trainer, _ = trained(batches, candidates=HEADS)
    assert task.heads.alive.all()
    assert trainer.callback_metrics["health/nonfinite_steps"] == 2  # once an epoch


class SaveAfter(Callback):
    """Saves a checkpoint after the first epoch and its validation."""

    def __init__(self, path):
        self.path = path

    def on_validation_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_the_choice_and_what_was_dropped_are_in_the_checkpoint(tmp_path):
    options = {"candidates": {"broken": Broken, **HEADS}}
    data, held_out = loader(labelled_batches(4)), loader(labelled_batches(2, seed=9))
    whole = small_classification(recipe=FALLING, **options)
    callbacks = [SaveAfter(tmp_path / "half.ckpt")]
    with pytest.warns(UserWarning, match="is dropped"):
        quiet_trainer(max_epochs=2, callbacks=callbacks).fit(whole, data, held_out)
    resumed = small_classification(recipe=FALLING, seed=5, **options)
    quiet_trainer(max_epochs=2).fit(resumed, data, held_out, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.heads.alive.tolist() == [False, True, True, True]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_only_validation_images_choose():
    task = small_classification(candidates=HEADS, learning_rates=RATES)
    data = phantoms(task)
    quiet_trainer(max_epochs=1).fit(task, datamodule=data)
    chosen = task.chosen_name
    index = data.index
    test = index["split"] == "test"
    index.loc[test, "effusion"] = index.loc[test, "effusion"].to_numpy()[::-1]
    again = small_classification(candidates=HEADS, learning_rates=RATES)
    other = phantoms(again)
    other._index = index
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(again, datamodule=other)
    trainer.test(again, datamodule=other, verbose=False)
    assert again.chosen_name == chosen
    scores = trainer.validate(again, datamodule=other, verbose=False)[0]
    candidates = {
        name.split("/")[-1]: score for name, score in scores.items() if "candidates" in name
    }
    assert list(candidates) == again.heads.names
    assert scores["val/auroc/macro"] == candidates[chosen] == max(candidates.values())


def test_validation_of_a_checkpoint_does_not_choose_anew():
    task = small_classification(candidates=HEADS)
    task.heads.chosen.fill_(0)
    task.heads.choose = lambda scores: pytest.fail("chosen")
    quiet_trainer().validate(task, loader(labelled_batches()), verbose=False)


def test_the_best_of_those_that_are_left_is_chosen():
    candidates = Candidates(make_candidates({"a": LinearProbe, "b": LinearProbe}, None), [4], 2)
    nan = float("nan")
    assert int(candidates.chosen) == -1
    assert not candidates.choose([nan, nan])
    with pytest.raises(InputError, match="none of the 2 candidates has been chosen"):
        _ = candidates.best
    assert candidates.choose([nan, 0.2])
    assert candidates.best == 1
    assert candidates.choose([0.3, 0.2])
    assert candidates.best == 0
    candidates.alive[0] = False
    assert candidates.choose([0.3, 0.2])
    assert candidates.best == 1
    assert not candidates.choose([0.3, nan])
    assert candidates.best == 1


def test_auprc_can_choose():
    task = small_classification(candidates=HEADS, select="auprc")
    trainer = quiet_trainer()
    trainer.fit(task, loader(labelled_batches()), loader(labelled_batches(seed=3)))
    metrics = trainer.callback_metrics
    scores = [float(metrics[f"candidates/auprc/{name}"]) for name in HEADS]
    assert task.heads.best == scores.index(max(scores))
    assert metrics["val/auprc/macro"] == max(scores)


def test_a_choice_without_validation_images_is_refused():
    task = small_classification(candidates=HEADS)
    data = phantoms(task, split=(0.8, 0.0, 0.2))
    with pytest.raises(InputError, match="3 candidates are chosen among by validation images"):
        quiet_trainer().fit(task, datamodule=data)
    with pytest.raises(InputError, match="3 candidates are chosen among by validation images"):
        quiet_trainer(limit_val_batches=0).fit(task, datamodule=phantoms(task))


def test_untrained_candidates_cannot_be_tested():
    task = small_classification(candidates=HEADS)
    with pytest.raises(InputError, match=re.escape("give the checkpoint of that run (ckpt_path)")):
        quiet_trainer().test(task, loader(labelled_batches()), verbose=False)


def test_all_start_from_the_same_numbers():
    heads = Candidates([Candidate(None, HEADS["glori"], rate) for rate in RATES], [8, 8], 3)
    assert heads.names == ["GLoRI_lr0.001", "GLoRI_lr0.03"]
    assert_same_head(heads[0], heads[1])
    before = torch.get_rng_state()
    assert not torch.equal(before, torch.Generator().get_state())  # the generator has moved on


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rates": []}, r"learning_rates must be positive and finite, got \[\]"),
        ({"learning_rates": [0.1, 0.0]}, r"must be positive and finite, got \[0.1, 0.0\]"),
        ({"learning_rates": [float("inf")]}, "must be positive and finite"),
        ({"learning_rates": [0.1, 0.1]}, "names of their own"),
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": {"loss": LinearProbe, "b": LinearProbe}}, "other than loss and backbone"),
        ({"candidates": HEADS, "frozen": False}, "need a frozen encoder"),
        ({"learning_rates": [0.1, 1.0], "frozen": False}, "need a frozen encoder"),
        (
            {"learning_rates": [0.1], "recipe": small_recipe(0.0)},
            "place of recipe.lr.value, which must be positive, got 0.0",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small_classification(**options)
