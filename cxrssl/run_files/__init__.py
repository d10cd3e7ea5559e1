"""What a run leaves on the disk, and how it survives whatever interrupts the run."""

from cxrssl.run_files.checkpoint_io import CheckpointFiles
from cxrssl.run_files.latest import last_checkpoint
from cxrssl.run_files.metrics_file import MetricsFile
from cxrssl.run_files.whole_file import remove_leftovers, written_whole

__all__ = [
    "CheckpointFiles",
    "MetricsFile",
    "last_checkpoint",
    "remove_leftovers",
    "written_whole",
]
