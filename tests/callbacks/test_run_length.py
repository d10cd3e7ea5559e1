import pytest
from lightning import LightningDataModule

from cxrssl.callbacks import RunLength
from cxrssl.errors import InputError
from tests.objectives.training import crops, loader, quiet_trainer, small_objective


class Data(LightningDataModule):
    batch_size = 4

    def train_dataloader(self):
        return loader(crops(3))


@pytest.mark.parametrize(
    ("images", "accumulate", "steps"), [(16, 1, 4), (17, 1, 5), (17, 2, 3), (4, 1, 1)]
)
def test_images_become_steps_before_the_schedules_are_made(images, accumulate, steps):
    objective = small_objective()
    trainer = quiet_trainer(accumulate_grad_batches=accumulate, callbacks=[RunLength(images)])
    trainer.fit(objective, datamodule=Data())
    assert trainer.global_step == steps
    assert objective.total_steps == steps


def test_the_batch_must_be_known():
    trainer = quiet_trainer(callbacks=[RunLength(8)])
    with pytest.raises(InputError, match="needs a data module that tells its batch_size"):
        trainer.fit(small_objective(), loader(crops(1)))


def test_a_positive_number():
    with pytest.raises(InputError, match="images must be positive, got 0"):
        RunLength(0)
