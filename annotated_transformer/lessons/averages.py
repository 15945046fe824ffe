"""Averages of checkpoints, and training that splits (chapter 16)."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from annotated_transformer.batches import collate, epochs
from annotated_transformer.config import TransformerConfig
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.objectives import Objective
from annotated_transformer.runs import encode
from annotated_transformer.tokenizers import WordTokenizer
from annotated_transformer.training import adam, set_rate, train_step, validate
from annotated_transformer.transformer import Transformer

Weights = dict[str, Tensor]


def mean_weights(checkpoints: Sequence[Weights]) -> Weights:
    """The mean of several models' weights, name by name (§6.1)."""
    names = checkpoints[0]
    return {k: torch.stack([c[k] for c in checkpoints]).mean(0) for k in names}


class Forks:
    """Training that splits: one end at a constant rate, one at a rate that falls to 0.

    A small Transformer learns short sentences of the grammar (chapter 14) up to the
    update `fork`. From there it goes on twice, to `end`, a checkpoint `every` updates.
    """

    def __init__(
        self, *, fork: int = 300, end: int = 340, every: int = 8, size: int = 20_000
    ):
        self.fork, self.end, self.every = fork, end, every
        corpus = {
            split: [p for p in pairs if max(len(text.split()) for text in p) <= 11]
            for split, pairs in grammar_corpus(size).items()
        }
        words = WordTokenizer.train(corpus["train"])
        self.pairs = encode(corpus["train"][:8000], words)
        self.held = encode(corpus["test"], words)
        self.config = TransformerConfig(
            vocab_size=words.source_vocab_size,
            tgt_vocab_size=words.target_vocab_size,
            d_model=64,
            d_ff=256,
            n_heads=4,
            n_layers=1,
            norm="pre",
        )
        self.probe = Transformer(self.config).eval()

    def rate(self, kind: str, step: int) -> float:
        """The learning rate of update `step`, counted from 0; "constant" or not."""
        risen = 0.005 * min(1, (step + 1) / 50)  # 50 steps of warmup
        left = min(1, (self.end - step - 1) / (self.end - self.fork))
        return risen if kind == "constant" else risen * left

    def run(self, seed: int) -> dict[str, list[Weights]]:
        """The checkpoints after the fork, of both ends."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # decides the first weights
            model = Transformer(self.config)
            optimizer = adam(model)
            self._train(model, optimizer, seed, range(self.fork), "constant")
            fork = deepcopy((model.state_dict(), optimizer.state_dict()))
            kept = {}
            for kind in ("constant", "decaying"):
                model.load_state_dict(fork[0])
                optimizer.load_state_dict(deepcopy(fork[1]))
                span = range(self.fork, self.end)
                kept[kind] = self._train(model, optimizer, seed, span, kind)
        return kept

    def _train(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        seed: int,
        span: range,
        kind: str,
    ) -> list[Weights]:
        kept = []
        stream = epochs(self.pairs, 400, seed=seed, first_step=span.start)
        objective = Objective(model, smoothing=0.1)
        for step, (_, chosen) in zip(span, stream, strict=False):
            model.train()
            torch.manual_seed(1000 * seed + step)  # for dropout
            set_rate(optimizer, self.rate(kind, step))
            batch = collate(chosen)
            train_step(objective, optimizer, [batch], n_tokens=batch.n_tokens, clip=1.0)
            if (step + 1 - self.fork) % self.every == 0:
                kept.append(deepcopy(model.state_dict()))
        return kept

    def loss(self, weights: Weights) -> float:
        """Nats per token of the held-out sentences, without label smoothing."""
        self.probe.load_state_dict(weights)
        return validate(Objective(self.probe, 0.0), self.held, 4000)
