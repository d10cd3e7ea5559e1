"""From files to batches: reading, the index, splits, sampling and the data modules."""

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.failures import TooManyCorruptImagesError
from cxrssl.data.features import FeatureStore
from cxrssl.data.image import ImageReadError, Radiograph, read_image
from cxrssl.data.index import load_index
from cxrssl.data.masks import MaskSource, decode_runs, encode_runs, fill_polygons
from cxrssl.data.phantom_datamodule import PhantomDataModule
from cxrssl.data.releases import NIHChestXray14, Release
from cxrssl.data.sampler import BatchPlan, FixedBatchSampler, PlannedBatchSampler
from cxrssl.data.sources import ImageFiles, ImageSource, PhantomSource
from cxrssl.data.splits import assign_splits
from cxrssl.data.subsets import few_shot, nested_subset
from cxrssl.data.targets import MaskRules
from cxrssl.data.task_dataset import TaskDataset
from cxrssl.data.validate import COLUMNS, SPLITS, label_names, validate_index

__all__ = [
    "COLUMNS",
    "SPLITS",
    "BatchPlan",
    "CXRDataModule",
    "EvalDataset",
    "FeatureStore",
    "FixedBatchSampler",
    "ImageFiles",
    "ImageReadError",
    "ImageSource",
    "MaskRules",
    "MaskSource",
    "NIHChestXray14",
    "PhantomDataModule",
    "PhantomSource",
    "PlannedBatchSampler",
    "Radiograph",
    "Release",
    "TaskDataset",
    "TooManyCorruptImagesError",
    "ViewDataset",
    "assign_splits",
    "decode_runs",
    "encode_runs",
    "few_shot",
    "fill_polygons",
    "label_names",
    "load_index",
    "nested_subset",
    "read_image",
    "validate_index",
]
