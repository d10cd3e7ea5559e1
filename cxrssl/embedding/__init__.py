"""``cxrssl embed``: the tokens of an encoder for every image of an index, as a table."""

from cxrssl.embedding.options import EmbedOptions
from cxrssl.embedding.run import Embedding, embed

__all__ = ["EmbedOptions", "Embedding", "embed"]
