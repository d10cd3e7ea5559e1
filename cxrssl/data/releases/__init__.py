"""Published datasets: a class for each, which turns the folder of its release into an index."""

from cxrssl.data.releases.boxes import Box, format_boxes, parse_boxes
from cxrssl.data.releases.nih import NIHChestXray14
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.vocabulary import COMMON, to_common

__all__ = [
    "COMMON",
    "Box",
    "NIHChestXray14",
    "Release",
    "format_boxes",
    "parse_boxes",
    "to_common",
]
