"""What one image becomes for an objective: crops, photometric change, masks, collation."""

from cxrssl.views.base import Views
from cxrssl.views.crops import Box, random_resized_crop, resize
from cxrssl.views.distortion import ACTION, IDENTITY, Distortion
from cxrssl.views.eval_view import EvalView
from cxrssl.views.joint import JointViews
from cxrssl.views.masked_view import MaskedView
from cxrssl.views.masking import BlockMasking
from cxrssl.views.multiblock import MultiBlockMasking
from cxrssl.views.multicrop import MultiCrop
from cxrssl.views.pair import PairViews
from cxrssl.views.photometry import Photometry
from cxrssl.views.supervised import SupervisedView
from cxrssl.views.targets import Targets
from cxrssl.views.world import CropPair, WorldViews

__all__ = [
    "ACTION",
    "IDENTITY",
    "BlockMasking",
    "Box",
    "CropPair",
    "Distortion",
    "EvalView",
    "JointViews",
    "MaskedView",
    "MultiBlockMasking",
    "MultiCrop",
    "PairViews",
    "Photometry",
    "SupervisedView",
    "Targets",
    "Views",
    "WorldViews",
    "random_resized_crop",
    "resize",
]
