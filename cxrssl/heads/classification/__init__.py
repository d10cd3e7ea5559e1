"""Classification heads: from the tokens of an encoder's last levels to a logit a finding."""

from cxrssl.heads.classification.attentive import AttentiveProbe
from cxrssl.heads.classification.base import ClassificationHead
from cxrssl.heads.classification.glori import GLoRI
from cxrssl.heads.classification.glori_weights import CXRLT_FINDINGS, load_glori_weights
from cxrssl.heads.classification.linear import LinearProbe

__all__ = [
    "CXRLT_FINDINGS",
    "AttentiveProbe",
    "ClassificationHead",
    "GLoRI",
    "LinearProbe",
    "load_glori_weights",
]
