"""Prompt and reports as tokens, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cxrssl.errors import InputError
from cxrssl.tasks.language_model import Tokenizer

__all__ = ["MASKED", "ReportTokens"]

MASKED = -100
"""Target of what is not learnt."""

_IMAGE = "<image>"


class ReportTokens:
    """Tokens of a prompt around an image, and of the report behind it.

    The parts are tokenised by themselves, so that the prompt has the same tokens with and without a
    report.

    Args:
        tokenizer: The language model's tokeniser.
        prompt: ``<image>`` in it says where the image is; without, it comes first.
        longest: Longest report in tokens; of a longer one the beginning is kept, without its end.

    Attributes:
        before: Tokens before the image, the begin-of-text token first if there is one.
        after: Tokens between the image and the report.

    Raises:
        InputError: If the prompt has several images, or ``longest`` is not positive.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, longest: int) -> None:
        if prompt.count(_IMAGE) > 1:
            raise InputError(f"the prompt must have {_IMAGE} once at most, got {prompt!r}")
        if longest < 1:
            raise InputError(f"max_text_tokens must be positive, got {longest}")
        self.tokenizer = tokenizer
        self.longest = longest
        before, _, after = prompt.rpartition(_IMAGE)
        bos = tokenizer.bos_token_id
        self.before = ([] if bos is None else [bos]) + self._encode(before)
        self.after = self._encode(after)

    def targets(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (B, T) of B reports with the end of each, masked behind it."""
        rows = []
        for text in texts:
            tokens = self._encode(text)
            whole = len(tokens) <= self.longest
            kept = [*tokens, self._end] if whole else tokens[: self.longest]
            rows.append(torch.tensor(kept))
        return pad_sequence(rows, batch_first=True, padding_value=MASKED)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the report that tokens say, up to the end of it."""
        kept = list(tokens)
        if self._end in kept:
            kept = kept[: kept.index(self._end)]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

    @property
    def _end(self) -> int:
        end = self.tokenizer.eos_token_id
        assert end is not None  # load_language_model refuses others
        return end

    def _encode(self, text: str) -> list[int]:
        # Some tokenisers make a token of nothing.
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []
