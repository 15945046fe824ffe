"""What a training step makes small: the smoothed loss, alone or with a charge."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.batches import Batch
from annotated_transformer.config import TrainingConfig
from annotated_transformer.loss import label_smoothed_loss
from annotated_transformer.special import PAD
from annotated_transformer.transformer import Transformer


class Objective(nn.Module):
    """The model and its loss as one module: token ids in, summed loss out."""

    def __init__(self, model: Transformer, smoothing: float):
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, batch: Batch) -> Tensor:
        """Sum over the real labels; `train_step` divides by the whole batch's count."""
        features = self.model.features(batch.src, batch.tgt_in)
        return label_smoothed_loss(
            features.flatten(0, 1),
            self.model.tgt_embeddings.weight,
            batch.labels.flatten(),
            smoothing=self.smoothing,
        )


def disagreement(
    first: Float[Tensor, "n d_model"],
    second: Float[Tensor, "n d_model"],
    weight: Float[Tensor, "vocab d_model"],
    labels: Int[Tensor, " n"],
) -> Float[Tensor, ""]:
    """KL(p || q) + KL(q || p), summed over real labels, in nats; not in the paper.

    p and q are what a model says in two passes with different dropout (R-Drop, Liang et
    al. 2021, arXiv 2106.14448). The softmax's normalizers cancel, and of each
    log p - log q the difference of the logits is left. Stores the logits of both.
    """
    real = labels != PAD
    x, y = (side[real] @ weight[PAD + 1 :].T for side in (first, second))
    return ((x.softmax(-1) - y.softmax(-1)) * (x - y)).sum()


class ConsistentObjective(Objective):
    """Reads each sentence twice in training, and charges for what it says differently.

    `consistency` is the weight of the charge, alpha in R-Drop (Liang et al. 2021, Eq.
    4; not in the paper). Only dropout makes two readings differ.
    """

    def __init__(self, model: Transformer, smoothing: float, consistency: float):
        super().__init__(model, smoothing)
        self.consistency = consistency

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss of two readings, plus the charge; in `eval()`, one reading."""
        if not self.training:
            return super().forward(batch)
        twice = Batch(batch.src.repeat(2, 1), batch.tgt.repeat(2, 1))
        features = self.model.features(twice.src, twice.tgt_in).flatten(0, 1)
        weight, labels = self.model.tgt_embeddings.weight, batch.labels.flatten()
        both = label_smoothed_loss(
            features, weight, labels.repeat(2), smoothing=self.smoothing
        )
        first, second = features.chunk(2)
        apart = disagreement(first, second, weight, labels)
        return both / 2 + self.consistency / 4 * apart


def objective_for(model: Transformer, config: TrainingConfig) -> Objective:
    """The objective that the settings ask for."""
    if config.consistency:
        return ConsistentObjective(model, config.smoothing, config.consistency)
    return Objective(model, config.smoothing)
