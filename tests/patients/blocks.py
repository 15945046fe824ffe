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

    def masks(self, src: Ids, tgt: Ids) -> dict[str, Tensor]:
        return {
            "tgt_mask": self.future(tgt.size(1)),
            "src_key_padding_mask": src == PAD,
            "memory_key_padding_mask": src == PAD,
        }

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        masks = self.masks(src, tgt)
        return self.output(self.transformer(self.embed(src), self.embed(tgt), **masks))


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

    def pairs(self, tgt: Ids) -> tuple[Ids, Ids]:
        """What the decoder is given, and what it must say."""
        return tgt[:, :-1], tgt[:, 1:]

    def step(self, batches: Batches) -> float:
        """One update, in which every label of the whole batch counts alike."""
        self.model.train()
        self.optimizer.zero_grad()
        n_labels = sum((self.pairs(tgt)[1] != PAD).sum() for _, tgt in batches)
        total = 0.0
        for src, tgt in batches:
            tgt_in, labels = self.pairs(tgt)
            logits = self.model(src, tgt_in)
            loss = self.loss(logits, labels, reduction="sum") / n_labels
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
        self.encoder = self.make_encoder()
        self.decoder = self.make_decoder()
        self.output = nn.Linear(D_MODEL, VOCAB_SIZE)

    def make_encoder(self) -> nn.Module:
        sizes, options = (D_MODEL, N_HEADS, D_FF, DROPOUT), {"norm_first": True}
        layer = nn.TransformerEncoderLayer(*sizes, batch_first=True, **options)
        norm = nn.LayerNorm(D_MODEL)
        return nn.TransformerEncoder(layer, N_LAYERS, norm, enable_nested_tensor=False)

    def make_decoder(self) -> nn.Module:
        sizes, options = (D_MODEL, N_HEADS, D_FF, DROPOUT), {"norm_first": True}
        layer = nn.TransformerDecoderLayer(*sizes, batch_first=True, **options)
        return nn.TransformerDecoder(layer, N_LAYERS, nn.LayerNorm(D_MODEL))

    def positions(self, length: int) -> Tensor:
        rates = 10_000 ** (-torch.arange(0, D_MODEL, 2) / D_MODEL)
        angles = torch.arange(length).unsqueeze(1) * rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode(self, src: Ids) -> Tensor:
        x = self.src_embedding(src) + self.positions(src.size(1))
        return self.encoder(self.dropout(x), src_key_padding_mask=src == PAD)

    def decode(self, tgt: Ids, memory: Tensor, padding: Tensor) -> Tensor:
        x = self.tgt_embedding(tgt) + self.positions(tgt.size(1))
        future = nn.Transformer.generate_square_subsequent_mask(tgt.size(1))  # -inf
        return self.decoder(
            self.dropout(x), memory, future, memory_key_padding_mask=padding
        )

    def forward(self, src: Ids, tgt: Ids) -> Tensor:
        return self.output(self.decode(tgt, self.encode(src), src == PAD))


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


def sick(
    what: str,
    says: str,
    cause: str,
    *,
    transformer: type = BoxTransformer,
    training: type = Training,
    greedy: type = Greedy,
) -> Case:
    """The healthy patient but for the piece that is given here."""
    return Case(
        f"blocks: {what}",
        says,
        cause,
        lambda: patient(transformer(), training, greedy),
    )


# Sick: masks and axes


class NoCausalMask(BoxTransformer):
    def masks(self, src, tgt):
        return {
            "src_key_padding_mask": src == PAD,
            "memory_key_padding_mask": src == PAD,
        }


class ZerosAndOnes(BoxTransformer):
    def future(self, length):
        return torch.ones(length, length).tril()  # a mask of floats is added


class CausalInverted(BoxTransformer):
    def future(self, length):
        return torch.ones(length, length, dtype=torch.bool).tril()


class PaddingInverted(BoxTransformer):
    def masks(self, src, tgt):
        return {
            "tgt_mask": self.future(tgt.size(1)),
            "src_key_padding_mask": src != PAD,
            "memory_key_padding_mask": src != PAD,
        }


class EncoderUnmasked(BoxTransformer):
    def masks(self, src, tgt):
        return {
            "tgt_mask": self.future(tgt.size(1)),
            "memory_key_padding_mask": src == PAD,
        }


class MemoryUnmasked(BoxTransformer):
    def masks(self, src, tgt):
        return {
            "tgt_mask": self.future(tgt.size(1)),
            "src_key_padding_mask": src == PAD,
        }


class BatchSecond(Halves):
    def make_encoder(self):
        layer = nn.TransformerEncoderLayer(D_MODEL, N_HEADS, D_FF, norm_first=True)
        norm = nn.LayerNorm(D_MODEL)
        return nn.TransformerEncoder(layer, N_LAYERS, norm, enable_nested_tensor=False)

    def encode(self, src):
        x = self.src_embedding(src) + self.positions(src.size(1))
        return self.encoder(self.dropout(x))  # with the padding mask, it raised


MASKS = [
    sick(
        "no tgt_mask",
        "nn.Transformer is called without tgt_mask: it does not make one by itself.",
        "causal_mask_missing",
        transformer=NoCausalMask,
    ),
    sick(
        "tgt_mask of zeros and ones",
        "tgt_mask is of floats, which are added to the scores: 0 and 1 hide nothing.",
        "causal_mask_missing",
        transformer=ZerosAndOnes,
    ),
    sick(
        "tgt_mask inverted",
        "True in tgt_mask hides, and was given to what may be seen.",
        "mask_inverted",
        transformer=CausalInverted,
    ),
    sick(
        "key_padding_mask inverted",
        "True in key_padding_mask hides, and was given to the words.",
        "mask_inverted",
        transformer=PaddingInverted,
    ),
    sick(
        "no src_key_padding_mask",
        "The encoder is not told what is padding.",
        "padding_mask_missing",
        transformer=EncoderUnmasked,
    ),
    sick(
        "no memory_key_padding_mask",
        "Cross-attention is not told what is padding.",
        "padding_mask_missing",
        transformer=MemoryUnmasked,
    ),
    sick(
        "batch_first forgotten",
        "The encoder lacks batch_first=True: it attends from sentence to sentence.",
        "batch_axis",
        transformer=BatchSecond,
    ),
]


# Sick: around the boxes


class TargetWithoutPositions(Halves):
    def decode(self, tgt, memory, padding):
        x = self.tgt_embedding(tgt)
        future = nn.Transformer.generate_square_subsequent_mask(tgt.size(1))
        return self.decoder(
            self.dropout(x), memory, future, memory_key_padding_mask=padding
        )


class FrozenEncoder(Halves):
    def encode(self, src):
        with torch.no_grad():
            return super().encode(src)


class OutputTooSmall(Halves):
    def __init__(self):
        super().__init__()
        largest_id = VOCAB_SIZE - 1
        self.output = nn.Linear(D_MODEL, largest_id)  # ids count from 0


class SoftmaxAtTheEnd(BoxTransformer):
    def forward(self, src, tgt):
        return F.softmax(super().forward(src, tgt), dim=-1)


class CopiedOutput(BoxTransformer):
    def tie(self):
        self.output.weight.data.copy_(self.embedding.weight.data)


class SharedData(BoxTransformer):
    def tie(self):
        self.output.weight.data = self.embedding.weight.data


class ClippedLogits(BoxTransformer):
    def forward(self, src, tgt):
        return F.relu(super().forward(src, tgt))


class OneTooEarly(BoxTransformer):
    def forward(self, src, tgt):
        early = torch.cat([src[:, :1], tgt[:, :-1]], dim=1)  # one glued sequence, cut
        return super().forward(src, early)


class KeptMasks(BoxTransformer):
    def __init__(self):
        super().__init__()
        self.kept = {}

    def masks(self, src, tgt):
        padding = self.kept.setdefault(src.shape, src == PAD)  # not made every time
        return {
            "tgt_mask": self.future(tgt.size(1)),
            "src_key_padding_mask": padding,
            "memory_key_padding_mask": padding,
        }


class Pretrained(BoxTransformer):
    def __init__(self):
        super().__init__()
        table = self.embedding.weight.detach().clone()
        self.embedding = nn.Embedding.from_pretrained(table)
        self.output = nn.Linear(D_MODEL, VOCAB_SIZE)


class KeepForDrop(BoxTransformer):
    def __init__(self):
        super().__init__()
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 1 - DROPOUT


class ZeroGains(BoxTransformer):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)  # biases, and the gains of the norms


AROUND = [
    sick(
        "ReLU on the logits",
        "forward ends in an activation: no logit is below zero.",
        "output_activation",
        transformer=ClippedLogits,
    ),
    sick(
        "cut one place too early",
        "The logits of each position were computed before its token was read.",
        "outputs_shifted",
        transformer=OneTooEarly,
    ),
    sick(
        "masks kept by shape",
        "The padding mask of the first batch is used for all others of its shape.",
        "state_kept",
        transformer=KeptMasks,
    ),
    sick(
        "probability to keep",
        "nn.Dropout is given 0.9, the probability to keep a number.",
        "dropout_high",
        transformer=KeepForDrop,
    ),
    sick(
        "gains of zero",
        "All one-dimensional parameters start at zero, the norms' gains among them.",
        "zero_weights",
        transformer=ZeroGains,
    ),
    sick(
        "no positions on the target side",
        "Positions are added to the source alone.",
        "positions_missing",
        transformer=TargetWithoutPositions,
    ),
    sick(
        "encoder in no_grad",
        "The encoder runs under torch.no_grad(): it never learns.",
        "encoder_detached",
        transformer=FrozenEncoder,
    ),
    sick(
        "output one too small",
        "The output layer lacks one token of the vocabulary.",
        "vocab_size",
        transformer=OutputTooSmall,
    ),
    sick(
        "softmax at the end of forward",
        "The model returns probabilities, and cross entropy takes them for logits.",
        "softmax_twice",
        transformer=SoftmaxAtTheEnd,
    ),
    sick(
        "output tied by a copy",
        "The output layer copies the embeddings: after one update, they differ.",
        "tied_copy",
        transformer=CopiedOutput,
    ),
    sick(
        "output tied by .data",
        "Two parameters have one memory: each has half of the gradient.",
        "tied_copy",
        transformer=SharedData,
    ),
]


# Sick: training and decoding


class Untied(BoxTransformer):
    def tie(self):
        """Left to the training."""


class TiedTooLate(Training):
    def make_optimizer(self):
        optimizer = super().make_optimizer()
        shared = nn.Parameter(torch.randn(VOCAB_SIZE, D_MODEL) * D_MODEL**-0.5)
        self.model.embedding.weight = self.model.output.weight = shared
        return optimizer


class DecoderOnly(Training):
    def make_optimizer(self):
        return torch.optim.AdamW(self.model.transformer.decoder.parameters(), lr=1e-3)


class Unshifted(Training):
    def pairs(self, tgt):
        return tgt, tgt


class MeanOfMeans(Training):
    def step(self, batches):
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for src, tgt in batches:
            tgt_in, labels = self.pairs(tgt)
            loss = self.loss(self.model(src, tgt_in), labels) / len(batches)
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.scheduler.step()
        return total


class SchedulerInTheLoop(Training):
    def step(self, batches):
        self.model.train()
        self.optimizer.zero_grad()
        n_labels = sum((self.pairs(tgt)[1] != PAD).sum() for _, tgt in batches)
        total = 0.0
        for i, (src, tgt) in enumerate(batches, start=1):
            tgt_in, labels = self.pairs(tgt)
            logits = self.model(src, tgt_in)
            loss = self.loss(logits, labels, reduction="sum") / n_labels
            loss.backward()
            total += loss.item()
            if i == len(batches):
                self.optimizer.step()
            self.scheduler.step()
        return total


class StaysInEval(Training):
    def __init__(self, model):
        super().__init__(model)
        model.eval()  # a first look at the validation set

    def step(self, batches):
        self.optimizer.zero_grad()
        n_labels = sum((self.pairs(tgt)[1] != PAD).sum() for _, tgt in batches)
        total = 0.0
        for src, tgt in batches:
            tgt_in, labels = self.pairs(tgt)
            logits = self.model(src, tgt_in)
            loss = self.loss(logits, labels, reduction="sum") / n_labels
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.scheduler.step()
        return total


class Reshaped(Training):
    def loss(self, logits, labels, reduction="mean"):
        batch, length, vocab = logits.shape
        return F.cross_entropy(
            logits.reshape(batch, vocab, length),  # for transpose(1, 2)
            labels,
            ignore_index=PAD,
            reduction=reduction,
        )


class LargerOfTwo(Training):
    def __init__(self, model):
        super().__init__(model)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=D_MODEL**-0.5)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: max((step + 1) ** -0.5, (step + 1) * WARMUP**-1.5),
        )


class HugeEps(Training):
    def make_optimizer(self):
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3, eps=1e9)


class WithDropout(Greedy):
    @torch.inference_mode()
    def __call__(self, src):
        return self.translate(src)


TRAINING = [
    sick(
        "tied after the optimizer was built",
        "The shared table is made after the optimizer, which holds the two old ones.",
        "optimizer_stale",
        transformer=Untied,
        training=TiedTooLate,
    ),
    sick(
        "optimizer of the decoder alone",
        "The optimizer has the decoder's parameters and no others.",
        "optimizer_incomplete",
        training=DecoderOnly,
    ),
    sick(
        "labels not shifted",
        "The decoder is given the very tokens that it must say.",
        "labels_not_shifted",
        training=Unshifted,
    ),
    sick(
        "logits reshaped for the loss",
        "reshape(batch, vocab, length) in the place of a transpose mixes positions.",
        "loss_scrambled",
        training=Reshaped,
    ),
    sick(
        "schedule of the larger",
        "The schedule of Eq. 3 takes the larger of its two lines, not the smaller.",
        "rate_large",
        training=LargerOfTwo,
    ),
    sick(
        "eps of a billion",
        "Adam's eps is 1e9 where 1e-9 is meant: no weight moves.",
        "optimizer_settings",
        training=HugeEps,
    ),
    sick(
        "scheduler advances with each micro-batch",
        "scheduler.step() stands in the loop over micro-batches.",
        "schedule_per_microbatch",
        training=SchedulerInTheLoop,
    ),
    sick(
        "training in eval mode",
        "train() is never called after the first validation: dropout never happens.",
        "dropout_never",
        training=StaysInEval,
    ),
    sick(
        "decoding with dropout",
        "Decoding never calls eval(): dropout is active.",
        "greedy_wrong",
        greedy=WithDropout,
    ),
]

SICK = MASKS + AROUND + TRAINING
NOTED = [
    sick(
        "frozen embeddings",
        "nn.Embedding.from_pretrained freezes the table, which is random here.",
        "parameters_frozen",
        transformer=Pretrained,
    ),
    sick(
        "mean of means",
        "Each micro-batch has its own mean: words of short ones weigh more.",
        "mean_of_means",
        training=MeanOfMeans,
    ),
]
