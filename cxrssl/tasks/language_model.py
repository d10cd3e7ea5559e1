"""Language models of Hugging Face's transformers: how they are loaded, told apart and decoded."""

import hashlib
import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["Tokenizer", "decode_greedily", "language_fingerprint", "load_language_model"]

_SAMPLED = 256  # weights of each tensor, which tell two models apart as well as billions do


class Tokenizer(Protocol):
    """What of a tokeniser of transformers is used."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of tokens."""


def load_language_model(
    model: str | nn.Module, tokenizer: str | Tokenizer | None
) -> tuple[nn.Module, Tokenizer]:
    """Return a causal language model in float32, and its tokeniser.

    Weights are read from safetensors only, and no code that lies beside them is run.

    Args:
        model: Folder, or name on the Hugging Face Hub, of a model that ``AutoModelForCausalLM``
            reads; or such a model, which is taken as it is.
        tokenizer: Folder, name, or a tokeniser of transformers; by default where the model is.

    Raises:
        InputError: If transformers is not installed, model or tokeniser cannot be read, a model
            is given without its tokeniser, or the tokeniser has no end-of-text token.
    """
    if not isinstance(model, str) and tokenizer is None:
        raise InputError("a language model given as an object needs its tokenizer: give both")
    words: Any = model if tokenizer is None else tokenizer
    if isinstance(words, str):
        words = _read("AutoTokenizer", words)
    if words.eos_token_id is None:
        raise InputError(
            "the tokenizer has no eos_token, by which a report ends: set one, or give another"
        )
    language: Any = model
    if isinstance(model, str):
        language = _read("AutoModelForCausalLM", model, use_safetensors=True).float()
    return language, words


def decode_greedily(model: Any, tokenizer: Tokenizer, max_new_tokens: int) -> None:
    """Let a model always say its likeliest token, up to the end-of-text token.

    Its own generation settings are replaced, as temperatures and penalties of a chat model would
    change what it says.

    Args:
        model: The language model.
        tokenizer: Its tokeniser.
        max_new_tokens: Longest answer in tokens.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = _transformers().GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos,
        pad_token_id=eos if pad is None else pad,
    )


@torch.no_grad()
def language_fingerprint(model: nn.Module) -> str:
    """Return a hash of the names, shapes and a sample of the weights."""
    digest = hashlib.blake2b(digest_size=12)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(_sample(value).numpy().tobytes())
    return digest.hexdigest()


def _sample(value: Tensor) -> Tensor:
    flat = value.flatten()
    return flat[:: max(flat.numel() // _SAMPLED, 1)].float().cpu()


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
    raise InputError(
        'report generation needs a language model of transformers: pip install "cxrssl[llm]"'
    )


def _read(kind: str, source: str, **options: Any) -> Any:
    """Return what a class of transformers reads from a folder or the Hub."""
    reader = getattr(_transformers(), kind)
    try:
        return reader.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{kind} cannot read {source}: {reason}") from error
