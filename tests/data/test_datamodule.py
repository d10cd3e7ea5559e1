import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DistributedSampler

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.failures import TooManyCorruptImagesError
from cxrssl.data.phantom import FINDINGS
from cxrssl.data.phantom_datamodule import PhantomDataModule
from cxrssl.errors import InputError
from cxrssl.views.eval_view import EvalView
from tests.data.stand_ins import (
    DrawViews,
    Recorder,
    data_module,
    quiet_trainer,
    write_images,
    write_index,
)

# A resumed run needs none of the callbacks that wrote its checkpoint; the trainer says it might.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """40 training images in ten batches of 4, 6 validation and 2 test images."""
    return write_index(tmp_path_factory.mktemp("images"))


def fit(index, *, workers=0, checkpoint=None, **options):
    model = Recorder()
    quiet_trainer(**options).fit(
        model, data_module(index, num_workers=workers), ckpt_path=checkpoint
    )
    return model.shown


def saving(folder, **when):
    callback = ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, **when)
    return {"callbacks": [callback], "enable_checkpointing": True}


def batches_before(checkpoint, per_epoch):
    state = torch.load(checkpoint, weights_only=True)["CXRDataModule"]
    return state["epoch"] * per_epoch + state["images"] // state["global_batch"]


EVERY_THIRD = {"every_n_train_steps": 3}
EPOCH_END = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
VALIDATION_END = {"every_n_epochs": 1, "save_on_train_epoch_end": False}


@pytest.mark.parametrize(
    ("when", "options"),
    [
        (EVERY_THIRD, {}),
        ({"every_n_train_steps": 5}, {"max_epochs": -1, "max_steps": 30}),
        ({"every_n_train_steps": 2}, {"accumulate_grad_batches": 3}),
        (EPOCH_END, {}),
        (EPOCH_END, {"max_epochs": -1, "max_steps": 30}),
        (EPOCH_END, {"max_epochs": -1, "max_steps": 30, "limit_val_batches": 1.0}),
        (VALIDATION_END, {"limit_val_batches": 1.0}),
        (VALIDATION_END, {"limit_val_batches": 1.0, "val_check_interval": 4}),
        ({"every_n_train_steps": 7}, {"limit_train_batches": 7}),
    ],
)
def test_resumed_run_goes_on_with_the_very_next_batch(tmp_path, index, when, options):
    whole = fit(index, **saving(tmp_path, **when), **options)
    checkpoints = sorted(tmp_path.iterdir())
    assert len(checkpoints) >= 3
    accumulated = options.get("accumulate_grad_batches", 1)
    per_epoch = options.get("limit_train_batches", 10 // accumulated * accumulated)
    for checkpoint in checkpoints:
        done = batches_before(checkpoint, per_epoch)
        assert fit(index, checkpoint=checkpoint, **options) == whole[done:]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (0, 2), (2, 0)])
def test_workers_change_nothing_before_or_after_a_checkpoint(tmp_path, index, before, after):
    unbroken = fit(index)
    assert fit(index, workers=before, **saving(tmp_path, every_n_train_steps=2)) == unbroken
    # In the middle of an epoch, and after its last batch: there workers fetch ahead too early.
    for name, done in (("epoch=1-step=14", 14), ("epoch=1-step=20", 20)):
        checkpoint = tmp_path / f"{name}.ckpt"
        assert batches_before(checkpoint, 10) == done
        assert fit(index, workers=after, checkpoint=checkpoint) == unbroken[done:]


def test_a_run_that_died_resumes_from_its_last_checkpoint(tmp_path, index):
    class Dying(Recorder):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 17:
                raise RuntimeError("the power is gone")

    trainer = quiet_trainer(**saving(tmp_path, **EVERY_THIRD))
    with pytest.raises(RuntimeError, match="the power is gone"):
        trainer.fit(Dying(), data_module(index, num_workers=2))
    (checkpoint,) = tmp_path.glob("*step=15.ckpt")
    assert fit(index, workers=2, checkpoint=checkpoint) == fit(index)[15:]


def test_epochs_differ_and_runs_do_not(index):
    shown = fit(index)
    draws = [[draw for _, draw in shown[first : first + 10]] for first in (0, 10, 20)]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert all(a != b for a, b in zip(draws[left], draws[right], strict=True))
    # The same image has other views in another epoch.
    views = [
        {
            number: view[1]
            for _, (numbers, views, _) in shown[first : first + 10]
            for number, view in zip(numbers, views, strict=True)
        }
        for first in (0, 10)
    ]
    assert len(views[0]) == 40
    assert not set(views[0].values()) & set(views[1].values())
    assert fit(index) == shown


def test_a_second_run_of_one_data_module_starts_over(tmp_path, index):
    module, trainer = data_module(index), quiet_trainer(**saving(tmp_path, **EVERY_THIRD))
    first = Recorder()
    trainer.fit(first, module)
    quiet_trainer().fit(Recorder(), module, ckpt_path=tmp_path / "epoch=1-step=15.ckpt")
    again = Recorder()
    quiet_trainer().fit(again, module)
    assert again.shown == first.shown


def test_loaders_made_anew_each_epoch_show_the_same(index):
    assert fit(index, reload_dataloaders_every_n_epochs=1) == fit(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_other_data_go_on_in_the_checkpoint_s_epoch(tmp_path, index, workers):
    """The state of one data set says nothing to another; the epoch is the trainer's."""

    class Other(CXRDataModule):
        pass

    whole = fit(index, **saving(tmp_path, every_n_epochs=1, save_on_train_epoch_end=True))
    model = Recorder()
    other = Other(index, views=DrawViews(), batch_size=4, num_workers=workers, seed=5)
    quiet_trainer().fit(model, other, ckpt_path=tmp_path / "epoch=0-step=10.ckpt")
    assert model.shown == whole[10:]


def test_another_global_batch_within_an_epoch_is_refused(tmp_path, index):
    fit(index, **saving(tmp_path, every_n_train_steps=5))
    middle, end = (tmp_path / name for name in ("epoch=0-step=5.ckpt", "epoch=0-step=10.ckpt"))
    other = data_module(index, batch_size=8)
    with pytest.raises(InputError, match="global batches of 4 images, this run makes 8"):
        quiet_trainer().fit(Recorder(), other, ckpt_path=middle)
    model = Recorder()
    quiet_trainer().fit(model, data_module(index, batch_size=8), ckpt_path=end)
    assert [counters[:2] for counters, _ in model.shown[:6]] == [
        (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0),
    ]  # fmt: skip


def test_position_counts_images_over_all_processes(index):
    loop = SimpleNamespace(
        epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=1, started=2)),
        epoch_loop=SimpleNamespace(
            batch_progress=SimpleNamespace(current=SimpleNamespace(processed=3))
        ),
    )
    module = data_module(index)
    module.trainer = SimpleNamespace(
        fit_loop=loop, world_size=2, global_rank=1, num_training_batches=5,
        accumulate_grad_batches=1,
    )  # fmt: skip
    state = module.state_dict()
    assert state == {
        "epoch": 1, "images": 24, "global_batch": 8, "accumulated": 1, "n_images": 40, "seed": 5,
    }  # fmt: skip
    assert all(type(value) is int for value in state.values())


def test_ranks_and_restarts_share_one_order(index):
    """Two processes of 4 go on where one process of 8 stopped, and take its batches apart."""
    single = data_module(index, batch_size=8)
    whole = [batch["image_number"].tolist() for batch in single.train_dataloader()]
    halves = []
    for rank in (0, 1):
        module = data_module(index, batch_size=4)
        counters = SimpleNamespace(processed=0, started=1, ready=1, completed=0)
        module.trainer = SimpleNamespace(
            world_size=2,
            global_rank=rank,
            num_training_batches=5,
            accumulate_grad_batches=1,
            callbacks=[],
            fit_loop=SimpleNamespace(
                epoch_progress=SimpleNamespace(current=counters),
                epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=counters)),
            ),
        )
        state = {"epoch": 0, "images": 16, "global_batch": 8, "n_images": 40, "seed": 5}
        module.load_state_dict(state)
        halves.append([batch["image_number"].tolist() for batch in module.train_dataloader()])
    assert [a + b for a, b in zip(*halves, strict=True)] == whole[2:]


def images_by_step(shown, micro):
    """Return the images of each optimiser step, in order."""
    numbers = [numbers for _, (numbers, _, _) in shown]
    steps = [numbers[i : i + micro] for i in range(0, len(numbers), micro)]
    return [[number for batch in step for number in batch] for step in steps]


@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": 14}])
@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (2, 4), (4, 2)])
def test_steps_go_on_with_other_micro_batches(tmp_path, index, before, after, options):
    """Eight images a step, five steps an epoch, in micro-batches of another size from then on."""

    def run(micro, checkpoint=None, **more):
        model = Recorder()
        trainer = quiet_trainer(accumulate_grad_batches=micro, **options, **more)
        trainer.fit(model, data_module(index, batch_size=8 // micro), ckpt_path=checkpoint)
        assert trainer.global_step == options.get("max_steps", 15)
        return images_by_step(model.shown, micro), model.shown

    whole, _ = run(before, **saving(tmp_path, every_n_train_steps=1))
    for step in (1, 5, 7, 10):  # within an epoch and after its last batch
        (checkpoint,) = tmp_path.glob(f"*step={step}.ckpt")
        steps, shown = run(after, checkpoint)
        assert steps == whole[step:]
        epoch, batch_idx, global_step = shown[0][0]
        assert (epoch, batch_idx, global_step) == (step // 5, step % 5 * after, step)


class WithinAStep(Callback):
    """Saves a checkpoint after the second of four micro-batches of the seventh step."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 6 and batch_idx % 4 == 1:
            trainer.save_checkpoint(self.path)


def test_a_checkpoint_within_a_step_repeats_the_whole_step(tmp_path, index):
    path = tmp_path / "within.ckpt"
    whole, resumed = Recorder(), Recorder()
    for model, start in ((whole, None), (resumed, path)):
        trainer = quiet_trainer(accumulate_grad_batches=4, callbacks=[WithinAStep(path)])
        trainer.fit(model, data_module(index, batch_size=2), ckpt_path=start)
    assert resumed.shown == whole.shown[24:]


def test_another_seed_on_resume_is_said(tmp_path, index):
    fit(index, **saving(tmp_path, every_n_train_steps=5))
    with pytest.warns(UserWarning, match="made with seed 5, this run has 6: .* another order"):
        quiet_trainer().fit(
            Recorder(), data_module(index, seed=6), ckpt_path=tmp_path / "epoch=0-step=5.ckpt"
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_leave_the_global_generator_alone(index, workers):
    module = data_module(index, num_workers=workers)
    state = torch.get_rng_state()
    next(iter(module.train_dataloader()))
    list(module.probe_dataloader("train"))
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_start_after_opencv_ran_many_threads(index):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (0, 0), 9)
        time.sleep(0.3)  # idle threads spin before they wait for work
        loader = data_module(index, num_workers=2).train_dataloader()
        loader.timeout = 30
        assert len(list(loader)) == 10
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def test_every_sampler_is_left_alone_by_trainers(index):
    module = data_module(index)
    loaders = [
        module.train_dataloader(),
        module.val_dataloader(),
        module.test_dataloader(),
        module.predict_dataloader(),
    ]
    assert all(isinstance(loader.sampler, DistributedSampler) for loader in loaders)


def test_validation_is_the_same_each_time_and_keeps_all_images(index):
    model = Recorder()
    quiet_trainer(limit_val_batches=1.0, max_epochs=2).fit(model, data_module(index))
    assert [numbers for numbers, _ in model.validated] == [[0, 1, 2, 3], [4, 5]] * 2
    assert model.validated[:2] == model.validated[2:]
    assert [view[0] for view in model.validated[1][1]] == [44, 45]


def test_splits_without_images(tmp_path):
    folder = write_images(tmp_path, 8)[0].rsplit("/", 1)[0]
    module = data_module(None, root=folder, split=(1.0, 0.0, 0.0))
    assert module.val_dataloader() == []
    with pytest.warns(UserWarning, match="Total length of `list` across ranks is zero"):
        quiet_trainer(limit_val_batches=1.0, max_epochs=1).fit(Recorder(), module)
    with pytest.raises(InputError, match="the index has no test images"):
        module.test_dataloader()
    with pytest.raises(InputError, match="split 'train' has no labelled image"):
        module.probe_dataloader("train")
    assert module.labels == []


def test_prediction_shows_every_image_once(index):
    predictions = quiet_trainer().predict(Recorder(), data_module(index))
    assert torch.cat(predictions).tolist() == list(range(48))


def test_probe_shows_labelled_images_only(index):
    module = data_module(index)
    batches = list(module.probe_dataloader("train"))
    numbers = torch.cat([batch["image_number"] for batch in batches])
    assert numbers.tolist() == list(range(1, 40))
    labels = torch.cat([batch["labels"] for batch in batches])
    assert module.labels == ["nodule", "edema"]
    assert torch.equal(labels, torch.stack([numbers % 2, 1 - numbers % 2], 1).float())
    grey = EvalView(image_size=8)(np.full((8, 8), 7, np.uint8))["image"]
    assert torch.equal(torch.cat([batch["image"] for batch in batches])[6], grey)


def test_probe_chooses_by_path_and_shards_without_overlap(index):
    module = data_module(index, probe_images=9)

    def numbers(loader):
        return torch.cat([batch["image_number"] for batch in loader]).tolist()

    chosen = numbers(module.probe_dataloader("train"))
    assert len(chosen) == 9
    assert chosen == sorted(chosen) == numbers(module.probe_dataloader("train"))
    shards = [numbers(module.probe_dataloader("train", (rank, 2))) for rank in (0, 1)]
    assert sorted(shards[0] + shards[1]) == chosen
    assert shards[0] == chosen[::2]

    class Reversed(CXRDataModule):
        def make_index(self):
            return super().make_index().iloc[::-1]

    other = Reversed(index, views=DrawViews(), seed=5, probe_images=9, num_workers=0)
    names = other.describe_images(numbers(other.probe_dataloader("train")))
    assert sorted(names) == sorted(module.describe_images(chosen))


def test_images_are_named_within_their_split(index):
    module = data_module(index)
    assert module.image_name(3).endswith("003.png")
    assert module.image_name(1, "test").endswith("047.png")
    names = module.describe_images([5, 0], "val")
    assert [name[-7:] for name in names] == ["045.png", "040.png"]
    assert module.image_name(41, "all") == module.image_name(1, "val")


def test_corrupt_images_are_listed_once_at_the_end(tmp_path):
    index = write_index(tmp_path, corrupt=(5, 41))
    trainer = quiet_trainer(limit_val_batches=1.0, max_epochs=2)
    module = data_module(index, max_corrupt=0.05)
    with pytest.warns(UserWarning, match=r"2 of 48 images could not be read:") as warned:
        trainer.fit(Recorder(), module)
    (message,) = (str(w.message) for w in warned if "could not be read" in str(w.message))
    assert message.count("005.png") == message.count("041.png") == 1


def test_one_corrupt_image_never_stops_a_run(tmp_path):
    module = data_module(write_index(tmp_path, corrupt=(5,)), max_corrupt=0.0)
    with pytest.warns(UserWarning, match=r"1 of 48 images .*\n.*005\.png"):
        quiet_trainer(max_epochs=1).fit(Recorder(), module)


@pytest.mark.filterwarnings("ignore:.*images could not be read")
def test_too_many_corrupt_images_stop_the_run(tmp_path):
    module = data_module(write_index(tmp_path, corrupt=tuple(range(0, 40, 5))), max_corrupt=0.05)
    message = r"3 of 48 images could not be read:(\n.*\.png.*){3}\nmax_corrupt allows 2: repair"
    with pytest.raises(TooManyCorruptImagesError, match=message):
        quiet_trainer().fit(Recorder(), module)


def test_views_are_asked_for(index):
    with pytest.raises(InputError, match=r"CXRDataModule needs views: pass objective\.views"):
        CXRDataModule(index).train_dataloader()


def test_images_are_asked_for():
    with pytest.raises(InputError, match="CXRDataModule has no images: give index"):
        CXRDataModule().setup("fit")


def test_overfitting_is_refused(index):
    with pytest.raises(InputError, match="overfit_batches does not work"):
        quiet_trainer(overfit_batches=1).fit(Recorder(), data_module(index))


def test_too_few_images_for_a_batch(index):
    with pytest.raises(InputError, match="40 training images do not fill one global batch of 41"):
        data_module(index, batch_size=41).train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"max_corrupt": 1.5}, r"max_corrupt must be in \[0, 1\], got 1.5"),
        ({"probe_images": 0}, "probe_images must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        CXRDataModule("index.csv", **options)


def test_seed_follows_the_environment_unless_given(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert CXRDataModule("index.csv").seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert CXRDataModule("index.csv").seed == 12
    assert CXRDataModule("index.csv", seed=3).seed == 3


def test_sampling_weights_of_a_data_set_are_used(index):
    class Weighted(CXRDataModule):
        def sampling_weights(self, rows):
            return (np.arange(len(rows)) == 7).astype(float)

    module = Weighted(index, views=DrawViews(), batch_size=20, num_workers=0)
    assert {n for batch in module.train_dataloader() for n in batch["image_number"].tolist()} == {7}


def test_phantom_needs_no_files():
    module = PhantomDataModule(60, 32, views=DrawViews(), batch_size=8, num_workers=0, seed=0)
    assert module.labels == list(FINDINGS)
    assert len(module.index) == 60
    (number,) = next(iter(module.train_dataloader()))["image_number"][:1].tolist()
    assert module.image_name(number).startswith("phantom/")
    batch = next(iter(module.probe_dataloader("train")))
    assert batch["image"].shape == (8, 1, 8, 8)
    drawn = int(module.image_name(3).removeprefix("phantom/"))
    pixels = module.make_source(module.rows("train"))[3]
    np.testing.assert_array_equal(pixels, module.phantom.pixels(drawn))
    with pytest.raises(InputError, match="n_images must be at least 1, got 0"):
        PhantomDataModule(0)
