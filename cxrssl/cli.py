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
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.callbacks import (
    EmbeddingFile,
    EncoderFile,
    Health,
    OnlineProbe,
    PredictionFile,
    ProgressBar,
    RunEstimate,
    RunFigures,
    TaskReport,
    WorldReport,
)
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.exit_codes import exit_code
from cxrssl.objectives import RecipeModule
from cxrssl.tasks import Task

__all__ = ["CXRCLI", "run"]

_RUN_FOLDER = "runs"
_SAVED_EVERY = timedelta(minutes=15)
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
            table = CSVLogger(root, name=None, version=board.version, flush_logs_every_n_steps=1)
            kwargs["logger"] = [board, table]
        kwargs["callbacks"] = _with_defaults(
            config.get("callbacks"),
            _of_a_task() if isinstance(self.model, Task) else _of_an_objective(),
            without={
                ProgressBar: config.get("enable_progress_bar") is False,
                ModelCheckpoint: config.get("enable_checkpointing") is False,
            },
        )
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Resolve ``--ckpt_path last`` among all runs of the run folder, not only the new one."""
        if not self._resolve_last():
            rank_zero_info("No checkpoint to resume yet: the run starts from the beginning.")

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


def last_checkpoint(root: Path) -> str | None:
    """Return the newest checkpoint of the runs below a folder, None where there is none.

    Those that SLURM's signal made Lightning write, in the folder itself, count as well.
    """
    patterns = ("version_*/checkpoints/*.ckpt", "hpc_ckpt_*.ckpt")
    found = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None


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
    without: dict[type[Callback], bool],
) -> list[Callback]:
    """Return the callbacks, and one of each default kind that is not among them or unwanted."""
    given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    defaults: list[Callback] = [
        *particular,
        ProgressBar(),
        RunFigures(),
        EncoderFile(),
        ModelCheckpoint(save_last="link", every_n_epochs=1, enable_version_counter=False),
        # An epoch of a large index takes hours, which a kill must not cost.
        ModelCheckpoint(
            filename="recent", train_time_interval=_SAVED_EVERY, enable_version_counter=False
        ),
    ]
    missing = [
        default
        for default in defaults
        if not without.get(type(default), False)
        and not any(isinstance(callback, type(default)) for callback in given)
    ]
    return given + missing


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
