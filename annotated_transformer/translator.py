"""A trained model with its tokenizer: text in, text out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from annotated_transformer.batches import collate, cut_by_tokens
from annotated_transformer.checkpoints import (
    WEIGHTS,
    check_sizes,
    load_weights,
    save_weights,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import beam_search
from annotated_transformer.devices import choose_device, fast_path
from annotated_transformer.errors import InputError
from annotated_transformer.files import write_json
from annotated_transformer.recipes import SETTINGS, read_settings
from annotated_transformer.special import EOS
from annotated_transformer.tokenizers import Tokenizer, load_tokenizer
from annotated_transformer.transformer import Transformer

PRETRAINED = Path(__file__).with_name("pretrained")  # the model that ships
BATCH_TOKENS = 4_000  # source tokens decoded at once


class Translator:
    """Translates sentences; saved as a folder of settings, tokenizer and weights.

    `alpha` is the length penalty of beam search that suits the model (§6.1).
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        source_lang: str = "de",
        target_lang: str = "en",
        alpha: float = 0.6,
    ):
        self.model, self.tokenizer, self.alpha = model, tokenizer, alpha
        self.source_lang, self.target_lang = source_lang, target_lang
        self.batch_tokens = BATCH_TOKENS

    def make_room(self, beam_size: int) -> None:
        """Decode fewer tokens at once where a wide beam would fill the memory."""
        self.batch_tokens = BATCH_TOKENS * 5 // max(5, beam_size)

    @classmethod
    def load(
        cls, folder: Path | str, *, weights: str = WEIGHTS, device: str = "cpu"
    ) -> "Translator":
        """Load a folder that `save` or a training run wrote, onto a device.

        Raises InputError if it holds no model, if its weights and settings disagree,
        or if there is no such device; "auto" uses this machine's accelerator.
        """
        place = choose_device(device)
        folder = Path(folder)
        settings, tokenizer = read_settings(folder), load_tokenizer(folder)
        config, recipe = settings.model, settings.recipe
        sizes = (tokenizer.source_vocab_size, tokenizer.target_vocab_size)
        wanted = (config.vocab_size, config.tgt_vocab_size or config.vocab_size)
        if sizes != wanted:
            raise InputError(
                f"{folder}: the tokenizer has {counts(sizes)} tokens, the model "
                f"{counts(wanted)}: they belong to different runs"
            )
        check_sizes(folder / weights, config)
        model = Transformer(config)
        load_weights(folder / weights, model)
        made = cls(model.eval().to(place), tokenizer)
        if settings.search:
            made.alpha = settings.search.alpha
        if recipe:
            made.source_lang, made.target_lang = recipe.source_lang, recipe.target_lang
        return made

    @property
    def device(self) -> torch.device:
        """The device that holds the model."""
        return self.model.tgt_embeddings.weight.device

    @classmethod
    def pretrained(cls, *, device: str = "cpu") -> "Translator":
        """The German-to-English model that ships with the package: no download.

        Its model card, `pretrained/README.md`, says how it was trained and scored.
        """
        return cls.load(PRETRAINED, device=device)

    def save(self, folder: Path | str, **settings: Any) -> None:
        """Write settings, tokenizer and weights; more settings may be added by name."""
        save_weights(Path(folder) / WEIGHTS, self.model)
        save_settings(Path(folder), self.model.config, self.tokenizer, **settings)

    def encode(self, text: str) -> list[int]:
        """Source ids of one sentence. Raises InputError if it is too long."""
        ids = self.tokenizer.encode_source(text)
        longest = self.model.config.max_length
        if len(ids) > longest:
            raise InputError(
                f"a sentence of {len(ids):,} tokens is longer than the {longest:,} "
                f"that the model reads: split it ({text[:40]!r}...)"
            )
        return ids

    def translate(
        self,
        sentences: Sequence[str],
        *,
        search: Callable[..., list[list[int]]] | None = None,
    ) -> list[str]:
        """Translate each sentence, in batches of similar length.

        `search(model, src)` finds the outputs: `greedy_search`, `beam_search` (by
        default, with the model's own `alpha`), `sample`. A blank sentence stays blank.
        All sentences are checked before the first one is translated.
        """
        search = search or partial(beam_search, alpha=self.alpha)
        encoded = [self.encode(sentence) for sentence in sentences]
        results = [""] * len(sentences)
        order = [i for i, ids in enumerate(encoded) if ids != [EOS]]
        order.sort(key=lambda i: -len(encoded[i]))
        for group in cut_by_tokens(order, list(map(len, encoded)), self.batch_tokens):
            src = collate([(encoded[i], []) for i in group]).src.to(self.device)
            with fast_path(self.model):
                outputs = search(self.model, src)
            for i, output in zip(group, outputs, strict=True):
                results[i] = self.tokenizer.decode(output)
        return results


def counts(sizes: tuple[int, int]) -> str:
    """One vocabulary's size, or two that differ."""
    return " and ".join(f"{size:,}" for size in dict.fromkeys(sizes))


def save_settings(
    folder: Path, config: TransformerConfig, tokenizer: Tokenizer, **settings: Any
) -> None:
    """Write everything but the weights: what a run knows before its first step."""
    write_json(folder / SETTINGS, {"model": asdict(config), **settings})
    tokenizer.save(folder)
