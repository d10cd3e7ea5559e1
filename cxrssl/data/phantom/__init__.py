"""The phantom: plausible frontal chest radiographs with labels and masks, made from a number."""

from cxrssl.data.phantom.files import write_dicom, write_png
from cxrssl.data.phantom.findings import FINDINGS
from cxrssl.data.phantom.phantom import Phantom, PhantomImage

__all__ = ["FINDINGS", "Phantom", "PhantomImage", "write_dicom", "write_png"]
