from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrssl.backbones import load_encoder
from cxrssl.callbacks import EncoderFile
from cxrssl.errors import InputError
from cxrssl.tasks import base
from cxrssl.views import EvalView, SupervisedView
from tests.objectives.training import loader, quiet_trainer
from tests.tasks.small import (
    FINDINGS,
    SIDE,
    labelled_batches,
    masked_batches,
    phantoms,
    small_classification,
    small_convnet,
    small_recipe,
    small_segmentation,
    small_vit,
)

ENCODERS = {"ViT": lambda **o: small_vit(drop_path=0.3, **o), "ConvNet": small_convnet}


class Modes(Callback):
    """Notes whether any part of the encoder is in training mode."""

    def __init__(self):
        self.trained = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(any(part.training for part in pl_module.backbone.modules()))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def fitted(task, batches, **options):
    trainer = quiet_trainer(**options)
    trainer.fit(task, loader(batches))
    return trainer


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("make", [small_classification, small_segmentation])
def test_a_frozen_encoder_stays_as_it_is(kind, make):
    task = make(ENCODERS[kind]())
    before, head = state(task.backbone), state(task)
    modes = Modes()
    batches = labelled_batches() if make is small_classification else masked_batches()
    fitted(task, batches, callbacks=[modes])
    assert modes.trained == [False] * 3
    for name, value in task.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert any(not torch.equal(value, head[name]) for name, value in task.state_dict().items())


def test_a_frozen_encoder_is_not_in_the_checkpoint(tmp_path):
    task = small_classification()
    trainer = fitted(task, labelled_batches())
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if name.startswith("backbone.")]
    assert "cxrssl" not in checkpoint
    other = small_classification(seed=1)
    quiet_trainer().validate(other, loader(labelled_batches()), ckpt_path=path, verbose=False)
    for name, value in task.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("other", [lambda: small_vit(seed=1), lambda: small_vit(class_token=False)])
def test_a_checkpoint_beside_another_frozen_encoder_is_refused(tmp_path, other):
    trainer = fitted(small_classification(), labelled_batches())
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    task = small_classification(other())
    with pytest.raises(InputError, match="frozen encoder that is another one than this"):
        quiet_trainer().test(task, loader(labelled_batches()), ckpt_path=path, verbose=False)


def test_a_frozen_encoder_is_hashed_once_a_run(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(base, "fingerprint", lambda backbone: seen.append(backbone) or "hash")
    task = small_classification()
    for _ in range(2):
        trainer = fitted(task, labelled_batches())
        for _ in range(3):
            trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert len(seen) == 2


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_fine_tuned_encoder_is_in_the_checkpoint_and_in_a_file_of_its_own(tmp_path, kind):
    task = small_classification(ENCODERS[kind](), frozen=False)
    before = state(task.backbone)
    modes = Modes()
    trainer = fitted(
        task,
        labelled_batches(),
        callbacks=[modes, EncoderFile()],
        enable_checkpointing=True,
        default_root_dir=tmp_path,
    )
    assert modes.trained == [True] * 3
    for name, parameter in task.backbone.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    (path,) = tmp_path.rglob("encoder.safetensors")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    for file in (path, tmp_path / "last.ckpt"):
        encoder = load_encoder(file)
        assert encoder.normalisation == (task.views.mean, task.views.std)
        assert encoder.arguments == task.backbone.arguments
        for name, value in task.backbone.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], value), name


def test_a_task_on_a_frozen_encoder_writes_no_encoder(tmp_path):
    fitted(
        small_classification(),
        labelled_batches(),
        callbacks=[EncoderFile()],
        enable_checkpointing=True,
        default_root_dir=tmp_path,
    )
    assert list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("encoder.safetensors"))


def test_a_fixed_table_of_positions_stays_fixed():
    task = small_classification(small_vit(class_token=False, position="sincos"), frozen=False)
    before = state(task.backbone)
    fitted(task, labelled_batches())
    changed = {
        name
        for name, value in task.backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert set(before) - changed == {"vit.pos_embed"}


def test_drop_path_rises_over_the_blocks():
    task = small_classification(small_vit(depth=3), frozen=False, drop_path=0.3)
    rates = [block.drop_rate for block in task.backbone.vit.blocks]
    assert rates == pytest.approx([0.0, 0.15, 0.3])


def test_rates_fall_from_layer_to_layer():
    recipe = small_recipe(layer_decay=0.5)
    task = small_classification(frozen=False, recipe=recipe)
    trainer = fitted(task, labelled_batches(1))
    factors = {
        id(parameter): group["lr_factor"]
        for group in trainer.optimizers[0].param_groups
        for parameter in group["params"]
    }
    found = {name: factors[id(parameter)] for name, parameter in task.named_parameters()}
    assert found["backbone.vit.patch_embed.proj.weight"] == 0.125
    assert found["backbone.vit.blocks.0.mlp.fc1.weight"] == 0.25
    assert found["backbone.vit.blocks.1.mlp.fc1.weight"] == 0.5
    assert found["heads.0.classifier.weight"] == 1.0


def test_embedding_is_that_of_evaluation_and_leaves_the_mode():
    task = small_classification(small_vit(drop_path=0.9), frozen=False).train()
    images = labelled_batches(1)[0]["image"]
    first, second = task.embed(images), task.embed(images)
    assert torch.equal(first, second)
    assert task.backbone.training
    assert torch.equal(task.embed(images, "mean"), task.backbone.eval()(images).patches.mean(1))


def test_default_views_are_those_of_the_encoder():
    encoder = small_vit(in_chans=3)
    encoder.normalisation = (0.4, 0.3)
    views = small_classification(encoder, views=None).views
    assert isinstance(views, SupervisedView)
    assert (views.image_size, views.in_chans, views.mean, views.std) == (SIDE, 3, 0.4, 0.3)
    assert views.targets.findings == tuple(FINDINGS)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (
            EvalView(image_size=SIDE, in_chans=3),
            r"images of 3 channel\(s\) but the encoder takes 1",
        ),
        (EvalView(image_size=40), "40 pixels, which the encoder's patches of 16 pixels do not"),
    ],
)
def test_views_that_do_not_fit_the_encoder_are_refused(views, message):
    with pytest.raises(InputError, match=message):
        small_classification(views=views)


def test_a_data_module_without_the_targets_is_refused():
    task = small_classification()
    data = phantoms(task)
    data.views = EvalView(image_size=SIDE)
    with pytest.raises(InputError, match=r"views without the targets of Classification"):
        quiet_trainer().fit(task, datamodule=data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_batch_norms_of_one_process_are_warned_of():
    for frozen in (True, False):
        task = small_classification(small_convnet(), frozen=frozen)
        task._trainer = SimpleNamespace(world_size=2)
        if frozen:
            task.on_fit_start()
        else:
            with pytest.warns(UserWarning, match="batch norms see only the images"):
                task.on_fit_start()
