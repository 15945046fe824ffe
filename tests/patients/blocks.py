"""Patients built from PyTorch's boxes: `nn.Transformer` with what it leaves out.

In its masks, True is hidden. First the healthy ones, then the sick.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.doctor.patient import Batches, Ids, Patient
from tests.patients.cases import Case

PAD, BOS, EOS = 0, 1, 2
VOCAB_SIZE, D_MODEL, N_HEADS, N_LAYERS, D_FF, DROPOUT = 97, 64, 4, 2, 128, 0.1
MAX_LENGTH, WARMUP = 512, 20


class BoxTransformer(nn.Module):
    """One table for both embeddings and the output; learned positions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, D_MODEL)
        self.position = nn.Embedding(MAX_LENGTH, D_MODEL)
        nn.init.normal_(self.embedding.weight, std=D_MODEL**-0.5)
        nn.init.normal_(self.position.weight, std=D_MODEL**-0.5)
        self.dropout = nn.Dropout(DROPOUT)
        self.transformer = self.boxes()
        self.output = nn.Linear(D_MODEL, VOCAB_SIZE, bias=False)
        self.tie()

    def boxes(self) -> nn.Module:
        sizes = (D_MODEL, N_HEADS, N_LAYERS, N_LAYERS, D_FF, DROPOUT)
        return nn.Transformer(*sizes, batch_first=True)

    def tie(self) -> None:
        self.output.weight = self.embedding.weight

    def embed(self, ids: Ids) -> Tensor:
        positions = torch.arange(ids.size(1), device=ids.device)
        x = self.embedding(ids) + self.position(positions)
        return self.dropout(x * D_MODEL**0.5)

    def future(self, length: int) -> Tensor:
        """True above the diagonal: what comes later is hidden."""
        return torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        x = self.transformer(
            self.embed(src),
            self.embed(tgt),
            tgt_mask=self.future(tgt.size(1)),
            src_key_padding_mask=src == PAD,
            memory_key_padding_mask=src == PAD,
        )
        return self.output(x)


class Training:
    """AdamW, a rate that rises and stays, and updates from several small batches."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.optimizer = self.make_optimizer()
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / WARMUP)
        )

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def loss(self, logits: Tensor, labels: Ids, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=PAD,
            label_smoothing=0.1,
            reduction=reduction,
        )

    def step(self, batches: Batches) -> float:
        """One update, in which every label of the whole batch counts alike."""
        self.model.train()
        self.optimizer.zero_grad()
        n_labels = sum((tgt[:, 1:] != PAD).sum() for _, tgt in batches)
        total = 0.0
        for src, tgt in batches:
            logits = self.model(src, tgt[:, :-1])
            loss = self.loss(logits, tgt[:, 1:], reduction="sum") / n_labels
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.scheduler.step()
        return total


class Greedy:
    """Always the likeliest next token, until each row has its end token."""

    def __init__(self, model: nn.Module):
        self.model = model

    @torch.inference_mode()
    def __call__(self, src: Ids) -> list[list[int]]:
        """The ids of each row, without its start and end token."""
        self.model.eval()
        return self.translate(src)

    def translate(self, src: Ids) -> list[list[int]]:
        output = torch.full((len(src), 1), BOS)
        while not self.finished(output).all() and output.size(1) < src.size(1) + 20:
            logits = self.model(src, output)[:, -1]
            output = torch.cat([output, logits.argmax(-1, keepdim=True)], dim=1)
        return [self.cut(row[1:]) for row in output.tolist()]

    def finished(self, output: Ids) -> Tensor:
        return (output == EOS).any(dim=1)

    def cut(self, row: list[int]) -> list[int]:
        return row[: row.index(EOS)] if EOS in row else row


def patient(
    model: nn.Module, training: type = Training, greedy: type = Greedy
) -> Patient:
    """All that its author has: model, loss, training step and decoding."""
    trainer = training(model)
    return Patient(
        model=model,
        vocab_size=VOCAB_SIZE,
        pad=PAD,
        bos=BOS,
        eos=EOS,
        loss=trainer.loss,
        train_step=trainer.step,
        optimizer=trainer.optimizer,
        greedy=greedy(model),
    )


# The other healthy one: norms first, nothing tied, sinusoids, a mask of floats


class Halves(nn.Module):
    """`nn.TransformerEncoder` and `nn.TransformerDecoder`, norms first."""

    def __init__(self):
        super().__init__()
        self.src_embedding = nn.Embedding(VOCAB_SIZE, D_MODEL, padding_idx=PAD)
        self.tgt_embedding = nn.Embedding(VOCAB_SIZE, D_MODEL, padding_idx=PAD)
        self.dropout = nn.Dropout(DROPOUT)
        options = {"dropout": DROPOUT, "batch_first": True, "norm_first": True}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(D_MODEL, N_HEADS, D_FF, **options),
            N_LAYERS,
            norm=nn.LayerNorm(D_MODEL),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(D_MODEL, N_HEADS, D_FF, **options),
            N_LAYERS,
            norm=nn.LayerNorm(D_MODEL),
        )
        self.output = nn.Linear(D_MODEL, VOCAB_SIZE)

    def positions(self, length: int) -> Tensor:
        rates = 10_000 ** (-torch.arange(0, D_MODEL, 2) / D_MODEL)
        angles = torch.arange(length).unsqueeze(1) * rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        padding = src == PAD
        x = self.src_embedding(src) + self.positions(src.size(1))
        memory = self.encoder(self.dropout(x), src_key_padding_mask=padding)
        y = self.tgt_embedding(tgt) + self.positions(tgt.size(1))
        y = self.decoder(
            self.dropout(y),
            memory,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(tgt.size(1)),
            memory_key_padding_mask=padding,
        )
        return self.output(y)


HEALTHY = [
    Case(
        "blocks: nn.Transformer, tied, learned positions",
        "",
        None,
        lambda: patient(BoxTransformer()),
    ),
    Case(
        "blocks: encoder and decoder, norms first, sinusoids",
        "",
        None,
        lambda: patient(Halves()),
    ),
]
