"""``cxrssl export``: encoders in the layouts of timm and Hugging Face, with a model card."""

from cxrssl.exporting.card import Card
from cxrssl.exporting.export import export_encoder

__all__ = ["Card", "export_encoder"]
