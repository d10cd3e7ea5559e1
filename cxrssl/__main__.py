"""The ``cxrssl`` command: quick to start, slow imports only when a run is asked for."""

import sys

__all__ = ["main"]

_HELP = """\
usage: cxrssl <command> [options]

Self-supervised pretraining of image encoders on chest radiographs.

commands:
  fit        pretrain an encoder
  validate   losses and probes of a checkpoint on the validation split
  test       the same on the test split
  predict    embeddings of every image of an index
  index      read the folder of a published dataset into an index, checked
  check      open every image of an index: what is corrupt, missing, duplicated or leaking
  pack       decode images once into a store that training reads at random
  embed      tokens of an encoder for every image of an index, as a table
  export     an encoder for timm or Hugging Face, with a model card
  evaluate   what frozen encoders are worth on labelled images, with intervals
  report     the report card of an encoder, or of two side by side, in one HTML file

Every command takes --config FILE, as often as needed, and any key of it as a flag:
  cxrssl fit --config examples/quickstart.yaml --trainer.max_epochs 2
  cxrssl fit --model DINOv2 --data CXRDataModule --data.root /my/images --print_config
  cxrssl index NIHChestXray14 /data/nih nih.parquet --verify
  cxrssl check index.csv --against evaluation.csv
  cxrssl pack index.csv packed --size 512
  cxrssl evaluate --encoder encoder.safetensors index.csv --out evaluation
  cxrssl embed --encoder encoder.safetensors index.csv embeddings.parquet
  cxrssl export --encoder encoder.safetensors --format huggingface my_encoder
  cxrssl report --encoder encoder.safetensors index.csv report.html
  cxrssl fit --help
  cxrssl fit --model.help DINOv2      (also --data.help, --trainer.callbacks.help)

`python -m cxrssl` does the same and also finds your own classes in the working directory.
"""

_ROOMS = {
    "check": "checking",
    "embed": "embedding",
    "evaluate": "evaluation",
    "export": "exporting",
    "index": "indexing",
    "pack": "packing",
    "report": "reporting",
}
"""Folder of each command that Lightning has no part in."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failure, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from cxrssl import __version__

        sys.stdout.write(f"cxrssl {__version__}\n")
        return 0
    if arguments[0] in _ROOMS:
        from importlib import import_module

        command = import_module(f"cxrssl.{_ROOMS[arguments[0]]}.command")
        return int(command.run(arguments[1:]))
    from cxrssl.cli import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
