"""A translator as a first one is often written, on nn.Transformer: `build` is right.

`broken` forgets one argument, which neither an error nor the loss curve will tell.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD, START, END = 0, 1, 2


class PositionalEncoding(nn.Module):
    def __init__(self, d_model: int, max_length: int = 512):
        super().__init__()
        position = torch.arange(max_length)[:, None]
        step = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000) / d_model))
        table = torch.zeros(max_length, d_model)
        table[:, 0::2] = torch.sin(position * step)
        table[:, 1::2] = torch.cos(position * step)
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.size(1)]


class MyTranslator(nn.Module):
    def __init__(self, vocab_size: int = 500, d_model: int = 128, n_heads: int = 4):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.positions = PositionalEncoding(d_model)
        self.dropout = nn.Dropout(0.1)
        self.transformer = nn.Transformer(
            d_model, n_heads, 2, 2, 4 * d_model, batch_first=True
        )
        self.output = nn.Linear(d_model, vocab_size)

    def embed(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(self.positions(x))

    def masks(self, src: Tensor, tgt: Tensor) -> dict[str, Tensor]:
        length = tgt.size(1)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        return {
            "tgt_mask": future.to(tgt.device),
            "src_key_padding_mask": src == PAD,
            "memory_key_padding_mask": src == PAD,
        }

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        masks = self.masks(src, tgt)
        x = self.transformer(self.embed(src), self.embed(tgt), **masks)
        return self.output(x)


class Forgetful(MyTranslator):
    def masks(self, src: Tensor, tgt: Tensor) -> dict[str, Tensor]:
        masks = super().masks(src, tgt)
        del masks["memory_key_padding_mask"]
        return masks


def with_training(model: MyTranslator) -> dict:
    """The model, and one update of its training, which the doctor listens to."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)

    def train_step(batches: list[tuple[Tensor, Tensor]]) -> None:
        model.train()
        optimizer.zero_grad()
        n_labels = sum(int((tgt[:, 1:] != PAD).sum()) for _, tgt in batches)
        for src, tgt in batches:
            logits = model(src, tgt[:, :-1])
            options = {"ignore_index": PAD, "reduction": "sum"}
            loss = F.cross_entropy(logits.mT, tgt[:, 1:], **options)
            (loss / n_labels).backward()
        optimizer.step()

    return {"model": model, "vocab_size": 500, "train_step": train_step}


def build() -> dict:
    return with_training(MyTranslator())


def broken() -> dict:
    return with_training(Forgetful())
