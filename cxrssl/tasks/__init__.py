"""Downstream tasks on an encoder: what a labelled task can make of what was learnt."""

from cxrssl.tasks.base import Task
from cxrssl.tasks.classification import Classification
from cxrssl.tasks.encoder import prepare_encoder
from cxrssl.tasks.report_generation import ReportGeneration
from cxrssl.tasks.segmentation import Segmentation

__all__ = [
    "Classification",
    "ReportGeneration",
    "Segmentation",
    "Task",
    "prepare_encoder",
]
