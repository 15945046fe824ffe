"""Minimum-risk training: the model's own translations, raised or lowered by their BLEU.

Not in the paper: Shen et al. 2016 (arXiv 1512.02433), as policy gradient with a
baseline (Ranzato et al. 2016, arXiv 1511.06732). For the last steps of a run: it needs
a model whose translations are already good.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from annotated_transformer.batches import Batch, EncodedPair, collate
from annotated_transformer.config import TrainingConfig
from annotated_transformer.decoding import sample
from annotated_transformer.objectives import Objective, objective_for
from annotated_transformer.special import EOS, PAD
from annotated_transformer.tokenizers import Tokenizer
from annotated_transformer.transformer import Transformer

DRAWS = 6  # translations of each sentence in a step

Reward = Callable[[Sequence[int], Sequence[int]], float]  # ids, reference ids


class RiskObjective(Objective):
    """The smoothed loss, plus `risk` times the expected loss of reward per sentence.

    Each sentence is translated `DRAWS` times by sampling, without dropout. A draw that
    is better than the others of its sentence becomes likelier, a worse one less likely.
    """

    def __init__(
        self, model: Transformer, smoothing: float, risk: float, reward: Reward
    ):
        super().__init__(model, smoothing)
        self.risk, self.reward = risk, reward

    def forward(self, batch: Batch) -> Tensor:
        """Sum over the real labels, and over sentences; in `eval()`, the loss alone."""
        loss = super().forward(batch)
        real = (batch.labels != PAD).any(-1)  # a blank row is no sentence
        if not self.training or not real.any():
            return loss
        self.model.eval()  # the draws and their probabilities without dropout
        draws = self.draw(batch.src[real], batch.labels[real])
        log_probs = self.log_probs(draws.batch)
        self.model.train()
        return loss - self.risk * (draws.lead * log_probs).mean(-1).sum()

    def draw(self, src: Tensor, labels: Tensor) -> "Draws":
        """Sampled translations of each sentence, and by how much each one leads."""
        rows = src.repeat_interleave(DRAWS, 0)
        outputs = sample(self.model, rows)
        references = labels.repeat_interleave(DRAWS, 0).tolist()
        pairs: list[EncodedPair] = [
            (source, [*output, EOS])
            for source, output in zip(rows.tolist(), outputs, strict=True)
        ]
        rewards = [
            self.reward(output, reference)
            for output, reference in zip(outputs, references, strict=True)
        ]
        return Draws(pairs, torch.tensor(rewards).view(-1, DRAWS), src.device)

    def log_probs(self, batch: Batch) -> Float[Tensor, "sentence draw"]:
        """The log-probability of each drawn translation."""
        logits = self.model(batch.src, batch.tgt_in)[..., PAD + 1 :].float()
        labels = batch.labels.clamp(min=PAD + 1) - (PAD + 1)
        each = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        return each.masked_fill(batch.labels == PAD, 0).sum(-1).view(-1, DRAWS)


class Draws:
    """Translations drawn for a batch, `DRAWS` of each sentence, and their leads.

    A draw's lead is its reward minus the mean reward of its sentence's other draws: so
    a sentence whose draws are all alike teaches nothing.
    """

    def __init__(
        self,
        pairs: list[EncodedPair],
        rewards: Float[Tensor, "sentence draw"],
        device: torch.device,
    ):
        self.batch = collate(pairs).to(device)
        lead = (rewards - rewards.mean(-1, keepdim=True)) * DRAWS / (DRAWS - 1)
        self.lead = lead.to(device)


def rewarded(
    tokenizer: Tokenizer,
) -> Callable[[Transformer, TrainingConfig], Objective]:
    """`objective_for`, which also knows how to reward text: by sentence BLEU."""
    reward = bleu_reward(tokenizer)

    def make(model: Transformer, config: TrainingConfig) -> Objective:
        if config.risk:
            return RiskObjective(model, config.smoothing, config.risk, reward)
        return objective_for(model, config)

    return make


def bleu_reward(tokenizer: Tokenizer) -> Reward:
    """sacreBLEU's smoothed BLEU of one sentence, from 0 to 1, on decoded text."""

    @cache
    def metric() -> Any:
        from sacrebleu.metrics import BLEU

        return BLEU(effective_order=True)

    @cache
    def reference(ids: tuple[int, ...]) -> str:
        return tokenizer.decode(ids)

    def reward(ids: Sequence[int], reference_ids: Sequence[int]) -> float:
        texts = tokenizer.decode(ids), [reference(tuple(reference_ids))]
        return metric().sentence_score(*texts).score / 100

    return reward
