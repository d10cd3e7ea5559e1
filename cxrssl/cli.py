"""LightningCLI with our defaults: loggers, checkpoints, probes, figures, and exit codes."""

import logging
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.callbacks import (
    EmbeddingFile,
    EncoderFile,
    Health,
    OnlineProbe,
    PredictionFile,
    ProgressBar,
    RecentCheckpoint,
    RunEstimate,
    RunFigures,
    StopAtSignal,
    Superseded,
    TaskReport,
    WorldReport,
)
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.exit_codes import exit_code
from cxrssl.objectives import RecipeModule
from cxrssl.run_files import CheckpointFiles, MetricsFile, last_checkpoint, remove_leftovers
from cxrssl.tasks import Task

__all__ = ["CXRCLI", "run"]

_RUN_FOLDER = "runs"
_ABANDONED = timedelta(hours=1)
_KNOWN_NOISE = (
    ".*does not have many workers.*",  # a choice, and the data-wait share shows what it costs
    "Found .* module.s. in eval mode.*",  # a teacher stays in evaluation mode by design
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    "Checkpoint directory .* exists and is not empty.*",
    "Precision .* is not supported by the model summary.*",  # which only rounds a size
    "The dirpath has changed from.*",  # every run has a folder of its own
    "Total length of .* across ranks is zero.*",  # an index without a validation split
    "Couldn't infer the batch indices.*",  # batches carry the numbers of their images
    "Experiment logs directory .* exists and is not empty.*",  # both loggers share the folder
    "LightningCLI's args parameter is intended.*",  # the entry point has parsed its first word
)


class CXRCLI(LightningCLI):
    """The parser: an objective or a task, a data module and a trainer, each named in the config."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hand the model's views to the data module; the one link there is."""
        parser.link_arguments("model.views", "data.init_args.views", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Refuse views given to the data module, which the link would overwrite in silence."""
        data = self.config[self.subcommand].get("data")
        if data and data.get("init_args", {}).get("views") is not None:
            raise InputError("set the views at the model (model.views): data.views follows them")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with a run folder of its own and what every run should have."""
        config = self._get(self.config_init, "trainer", default={})
        if config.get("logger") in (None, True):
            root = config.get("default_root_dir") or _RUN_FOLDER
            board = TensorBoardLogger(root, name=None)
            # Both write into one folder, so the second is told the number of the first; and what
            # is logged is written at once, so that a kill loses none of it.
            table = MetricsFile(root, name=None, version=board.version, flush_logs_every_n_steps=1)
            kwargs["logger"] = [board, table]
        kwargs["callbacks"] = _with_defaults(
            config.get("callbacks"),
            _of_a_task() if isinstance(self.model, Task) else _of_an_objective(),
            without_progress=config.get("enable_progress_bar") is False,
            without_checkpoints=config.get("enable_checkpointing") is False,
        )
        kwargs["plugins"] = _with_checkpoint_files(config.get("plugins"))
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Resolve ``--ckpt_path last`` among all runs of the run folder, not only the new one."""
        config = self.config_init[self.subcommand]
        if config["ckpt_path"] != "last":
            return
        _clean(Path(self.trainer.default_root_dir))
        if not self._resolve_last():
            rank_zero_info("No checkpoint to resume yet: the run starts from the beginning.")
            return
        callbacks: list[Callback] = getattr(self.trainer, "callbacks", [])
        for callback in callbacks:
            if isinstance(callback, Superseded):
                callback.former = Path(config["ckpt_path"])

    def _resolve_last(self) -> bool:
        """Put the newest checkpoint in the place of ``last``; return whether all is well."""
        config = self.config_init[self.subcommand]
        if config["ckpt_path"] != "last":
            return True
        config["ckpt_path"] = last_checkpoint(Path(self.trainer.default_root_dir))
        if config["ckpt_path"] is not None:
            rank_zero_info(f"Takes up {config['ckpt_path']}.")
        return config["ckpt_path"] is not None

    def _need_last(self) -> None:
        """Resolve ``--ckpt_path last``; without a checkpoint there is nothing to evaluate."""
        if not self._resolve_last():
            raise InputError(
                f"there is no checkpoint below {self.trainer.default_root_dir}: give ckpt_path, or "
                "the trainer.default_root_dir of the run"
            )

    before_validate = before_test = before_predict = _need_last


@rank_zero_only
def _clean(root: Path) -> None:
    """Remove what runs that were killed have left half-written, but nothing of one at work."""
    for folder in root.glob("version_*"):
        remove_leftovers(folder, older_than=_ABANDONED)


def _with_checkpoint_files(plugins: Any) -> list[Any]:
    """Return the plugins, and ours for checkpoints unless another one is among them."""
    given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    if any(isinstance(plugin, CheckpointIO) for plugin in given):
        return given
    return [*given, CheckpointFiles()]


def _of_an_objective() -> list[Callback]:
    """Return what watches a pretraining run."""
    # Where memory is not a device's, the seconds that the estimate takes are not worth it.
    estimate = [RunEstimate()] if torch.cuda.is_available() else []
    return [OnlineProbe(), Health(), *estimate, EmbeddingFile(), WorldReport()]


def _of_a_task() -> list[Callback]:
    """Return what reports on a task."""
    return [TaskReport(), PredictionFile()]


def _with_defaults(
    callbacks: Callback | list[Callback] | None,
    particular: list[Callback],
    *,
    without_progress: bool,
    without_checkpoints: bool,
) -> list[Callback]:
    """Return the callbacks, and one of each default kind that is not among them or unwanted."""
    given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    defaults: list[Callback] = [
        *particular,
        *([] if without_progress else [ProgressBar()]),
        RunFigures(),
        EncoderFile(),
        StopAtSignal(),
    ]
    missing = [d for d in defaults if not any(isinstance(c, type(d)) for c in given)]
    return given + missing + ([] if without_checkpoints else _of_checkpoints(given))


def _of_checkpoints(given: list[Callback]) -> list[Callback]:
    """Return what keeps the last epoch and, since a long one takes hours, the last minutes.

    Another ``ModelCheckpoint`` of the user's takes the place of all that.
    """
    if any(isinstance(c, ModelCheckpoint) and not isinstance(c, RecentCheckpoint) for c in given):
        return []
    every_epoch = ModelCheckpoint(save_last="link", every_n_epochs=1, enable_version_counter=False)
    defaults = (Superseded(), every_epoch, RecentCheckpoint())
    return [d for d in defaults if not any(type(c) is type(d) for c in given)]


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()


def run(arguments: list[str]) -> int:
    """Run one subcommand and return its exit code."""
    for message in _KNOWN_NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    return exit_code(
        lambda: CXRCLI(
            RecipeModule,
            CXRDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=arguments,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "default_root_dir": _RUN_FOLDER,
                "use_distributed_sampler": False,  # our samplers split the batches themselves
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
            },
            parser_kwargs={"prog": "cxrssl", "allow_abbrev": False, "exit_on_error": False},
        )
    )
