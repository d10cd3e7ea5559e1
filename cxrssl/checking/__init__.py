"""Looking through the images of indices: what is corrupt, missing, duplicated or leaking."""

from cxrssl.checking.check import Checked, check
from cxrssl.checking.summary import summary

__all__ = ["Checked", "check", "summary"]
