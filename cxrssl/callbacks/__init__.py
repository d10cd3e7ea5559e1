"""Lightning callbacks that watch a run: probes, health, speed, figures, files, the world report."""

from cxrssl.callbacks.embedding_file import EmbeddingFile
from cxrssl.callbacks.encoder_file import EncoderFile
from cxrssl.callbacks.estimate import RunEstimate
from cxrssl.callbacks.figures import RunFigures
from cxrssl.callbacks.health import Health
from cxrssl.callbacks.prediction_file import PredictionFile
from cxrssl.callbacks.probe import OnlineProbe
from cxrssl.callbacks.progress import ProgressBar
from cxrssl.callbacks.recent_checkpoint import RecentCheckpoint
from cxrssl.callbacks.run_length import RunLength
from cxrssl.callbacks.stop_at_signal import StopAtSignal
from cxrssl.callbacks.superseded import Superseded
from cxrssl.callbacks.task_report import TaskReport
from cxrssl.callbacks.world import WorldReport

__all__ = [
    "EmbeddingFile",
    "EncoderFile",
    "Health",
    "OnlineProbe",
    "PredictionFile",
    "ProgressBar",
    "RecentCheckpoint",
    "RunEstimate",
    "RunFigures",
    "RunLength",
    "StopAtSignal",
    "Superseded",
    "TaskReport",
    "WorldReport",
]
