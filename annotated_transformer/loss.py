"""Label smoothing (§5.4): the target as a distribution, and the fused loss."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from annotated_transformer.special import PAD


def smoothed_targets(
    labels: Int[Tensor, " n"], vocab_size: int, smoothing: float = 0.1
) -> Float[Tensor, "n vocab_size"]:
    """1 - smoothing on the label, the rest spread evenly over all real tokens (§5.4).

    Padding is not a real token: it gets 0, and a padded position is a row of zeros.
    """
    targets = torch.full((len(labels), vocab_size), smoothing / (vocab_size - 1))
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    targets[:, PAD] = 0.0
    targets[labels == PAD] = 0.0
    return targets


def smoothed_kl(
    logits: Float[Tensor, "n vocab"], labels: Int[Tensor, " n"], smoothing: float = 0.1
) -> Float[Tensor, ""]:
    """The explicit form: KL(smoothed target || model), summed over positions (§5.4).

    Zero where the model predicts exactly the smoothed target; `label_smoothed_loss` is
    this plus the entropy of the targets, a constant.
    """
    logits = logits.clone()
    logits[:, PAD] = -torch.inf  # padding is never predicted
    targets = smoothed_targets(labels, logits.size(-1), smoothing)
    return F.kl_div(logits.log_softmax(-1)[:, 1:], targets[:, 1:], reduction="sum")


def label_smoothed_loss(
    features: Float[Tensor, "n d_model"],
    weight: Float[Tensor, "vocab d_model"],
    labels: Int[Tensor, " n"],
    *,
    smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    """Cross entropy with the smoothed target, summed over real labels, in nats (§5.4).

    Smoothing only adds the margin of the label's logit over the mean logit to the plain
    cross entropy:  loss = CE + smoothing * (logit[label] - mean(logits)).
    The plain part can then be fused with the output layer, in chunks that never store
    the (n, vocab) logits, and the margin needs one dot product per position.
    Row 0 of `weight` belongs to padding. It is left out, so that padding gets neither
    smoothing mass nor probability; padded positions count for nothing.
    """
    weight, classes = weight[PAD + 1 :], labels - (PAD + 1)
    margin = weight[classes.clamp(min=0)] - weight.mean(0)
    penalty = (features * margin).sum(-1)[labels != PAD].sum()
    return linear_cross_entropy(features, weight, classes) + smoothing * penalty


def linear_cross_entropy(
    features: Float[Tensor, "n d_model"],
    weight: Float[Tensor, "classes d_model"],
    classes: Int[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Summed cross entropy of features @ weight.T; class -1 counts for nothing."""
    if hasattr(F, "linear_cross_entropy"):  # torch 2.13: never stores the logits
        # By itself it takes 32 positions at a time: too few for fast products.
        options = torch.nn.LinearCrossEntropyOptions(
            chunking_method=None, batch_chunk_size=256
        )
        return F.linear_cross_entropy(
            features, weight, classes, ignore_index=-1, reduction="sum", options=options
        )
    return F.cross_entropy(
        features @ weight.T, classes, ignore_index=-1, reduction="sum"
    )
