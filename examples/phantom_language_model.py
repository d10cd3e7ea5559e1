"""Writes a small untrained language model that knows the words of the phantom's reports.

    python examples/phantom_language_model.py runs/language_model

It stands in for Vicuna and the like where nothing can be downloaded; report_phantom.yaml takes it.
"""

import argparse

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cxrssl.data import PhantomDataModule

PROMPT = "Provide a description of the findings in the radiology image."


def main() -> None:
    """Build the model and its tokeniser, and write both into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    folder = parser.parse_args().folder
    reports = PhantomDataModule(n_images=200, size=32).index["text"]
    words = sorted({word for text in [PROMPT, *reports] for word in text.split()})
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
