"""What one image becomes for an objective: crops, photometric change, masks, collation."""

from cxrssl.views.base import Views
from cxrssl.views.crops import Box, random_resized_crop, resize
from cxrssl.views.eval_view import EvalView
from cxrssl.views.masking import BlockMasking
from cxrssl.views.multicrop import MultiCrop
from cxrssl.views.photometry import Photometry

__all__ = [
    "BlockMasking",
    "Box",
    "EvalView",
    "MultiCrop",
    "Photometry",
    "Views",
    "random_resized_crop",
    "resize",
]
