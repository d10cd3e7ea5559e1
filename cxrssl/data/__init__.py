"""From files to batches: reading, the index, splits, sampling and the data modules."""

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.failures import TooManyCorruptImagesError
from cxrssl.data.image import ImageReadError, Radiograph, read_image
from cxrssl.data.index import load_index
from cxrssl.data.phantom_datamodule import PhantomDataModule
from cxrssl.data.sampler import BatchPlan, FixedBatchSampler, PlannedBatchSampler
from cxrssl.data.sources import ImageFiles, ImageSource, PhantomSource
from cxrssl.data.splits import assign_splits
from cxrssl.data.validate import COLUMNS, SPLITS, label_names, validate_index

__all__ = [
    "COLUMNS",
    "SPLITS",
    "BatchPlan",
    "CXRDataModule",
    "EvalDataset",
    "FixedBatchSampler",
    "ImageFiles",
    "ImageReadError",
    "ImageSource",
    "PhantomDataModule",
    "PhantomSource",
    "PlannedBatchSampler",
    "Radiograph",
    "TooManyCorruptImagesError",
    "ViewDataset",
    "assign_splits",
    "label_names",
    "load_index",
    "read_image",
    "validate_index",
]
