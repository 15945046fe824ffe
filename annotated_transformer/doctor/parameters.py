"""Parameters: registered once, tied in earnest, reached by gradients."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.doctor.findings import (
    DEPENDENCE,
    STRUCTURE,
    finding,
    healthy,
    note,
    proven_first,
    skipped,
    some,
)
from annotated_transformer.doctor.patient import as_logits
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.visit import Visit


def layers_are_distinct(visit: Visit) -> Iterator[Result]:
    """No layer may stand at several places of a stack."""
    name = "layers are distinct"
    stacks = [
        (path, list(m))
        for path, m in (
            visit.module.named_modules() if visit.module is not None else ()
        )
        if isinstance(m, nn.ModuleList | nn.Sequential)
    ]
    for path, layers in stacks:
        own = [layer for layer in layers if has_parameters(layer)]
        if len({id(layer) for layer in own}) < len(own):
            n = len({id(layer) for layer in own})
            says = f"{path or 'the stack'} has {len(own)} places and {n} "
            says += f"{type(own[0]).__name__}"
            yield finding(name, says, "shared_layer", weight=STRUCTURE)
            return
    yield healthy(name, f"{len(stacks)} stacks without a repeated layer")


def has_parameters(layer: nn.Module | None) -> bool:
    """Whether a place in a stack holds a module with weights."""
    return layer is not None and any(True for _ in layer.parameters())


def ties_are_real(visit: Visit) -> Iterator[Result]:
    """Matrices of the vocabulary's size that are equal must be one."""
    name = "tied weights"
    p = visit.patient
    sizes = {p.vocab_size, p.src_vocab_size}
    named = list(visit.module.named_parameters() if visit.module is not None else ())
    wide = [(n, w) for n, w in named if w.dim() == 2 and sizes & set(w.shape)]
    for i, (one, first) in enumerate(wide):
        for two, second in wide[i + 1 :]:
            if first.shape == second.shape and torch.equal(first, second):
                apart = first.data_ptr() != second.data_ptr()
                says = f"{one} and {two} hold equal numbers in two places: the first "
                says += "update will part them"
                if not apart:
                    says = f"{one} and {two} are two parameters on one memory: each "
                    says += "gets half of the gradient and its own update"
                yield finding(name, says, "tied_copy", weight=STRUCTURE)
                return
    yield healthy(name, "no copies of the embeddings")


def gradients_arrive(visit: Visit) -> Iterator[Result]:
    """Every parameter must get a gradient from the loss."""
    name = "gradients arrive"
    if visit.module is None:
        yield skipped(name, "give the module that holds the weights")
        return
    every = list(visit.module.named_parameters())
    named = [(n, p) for n, p in every if p.requires_grad]
    frozen = [n for n, p in every if not p.requires_grad and "pos" not in n.lower()]
    if frozen and named:
        says = f"{len(frozen)} of {len(every)} parameters are frozen: "
        yield note(name, says + some(frozen), "parameters_frozen")
    if not backward(visit):
        says = "the logits have no gradient: nothing can be learned"
        causes = ["unused_parameters", "encoder_detached"]
        yield finding(name, says, *causes, weight=DEPENDENCE)
        return
    without = [
        n for n, p in named if p.grad is None or not p.grad.nan_to_num(1.0).any()
    ]
    if not without:
        yield healthy(name, f"at all {len(named)} parameters")
        return
    used = {leaf.data_ptr() for leaf in visit.trace.leaves} if visit.trace else set()
    lost = visit.trace.lost() if visit.trace else set()
    cut = [n for n, p in named if n in without and p.data_ptr() in used - lost]
    source = source_parameters(visit)
    says = f"{len(without)} of {len(named)} parameters get no gradient: "
    says += some(without)
    causes = ["unused_parameters", "encoder_detached"]
    if len(cut) == len(without) and set(cut) <= source:
        causes.reverse()
    first = ["memory_ignored", "swapped", "mask_inverted", "shared_layer"]
    strong = STRUCTURE - 5 if causes[0] == "encoder_detached" else DEPENDENCE
    yield proven_first(visit, name, says, first, causes, weight=strong)


def source_parameters(visit: Visit) -> set[str]:
    """The parameters that only the source's side uses, by name."""
    if visit.module is None or visit.trace is None:
        return set()
    sides = visit.trace.sides_of_leaves()
    return {
        n
        for n, p in visit.module.named_parameters()
        if sides.get(p.data_ptr(), frozenset()) == {"src"}
    }


def backward(visit: Visit) -> bool:
    """Leave the gradients of a loss on the examples; False if there are none."""
    if visit.module is not None:
        visit.module.zero_grad()
    with torch.enable_grad():
        logits = visit.output(*visit.examples)
        if not logits.requires_grad:
            return False
        labels = visit.words(*logits.shape[:2]).flatten()
        labels = labels.clamp(max=logits.size(-1) - 1)
        F.cross_entropy(as_logits(logits).flatten(0, 1), labels).backward()
    return True


def sizes_by_depth(visit: Visit) -> Iterator[Result]:
    """Activations and gradients of each layer should be of one order of magnitude."""
    name = "sizes by depth"
    stacks = stacks_of_layers(visit)
    if not stacks or not backward(visit):
        yield skipped(name, "no stacks of layers")
        return
    names, activations = layer_activations(visit, stacks)
    gradients = [gradient_size(layer) for _, layers in stacks for layer in layers]
    visit.pictures["depth"] = {
        "names": names,
        "activations": activations,
        "gradients": gradients,
    }
    positive = [g for g in gradients if g > 0]
    ratio = max(positive) / min(positive) if positive else math.nan
    words = f"{ratio:.2g} times between the layers' gradients"
    if not ratio <= 1e4:
        causes = ["init_large", "residual_missing", "scale_missing"]
        yield proven_first(
            visit, name, words, causes, ["init_large", "residual_missing"]
        )
    else:
        yield healthy(name, words, measured=f"{ratio:.2g}", expected="< 10,000")


def stacks_of_layers(visit: Visit) -> list[tuple[str, list[nn.Module]]]:
    """Lists of modules of one class, each with several matrices, by their path."""
    lists = [
        (path, list(m))
        for path, m in (
            visit.module.named_modules() if visit.module is not None else ()
        )
        if isinstance(m, nn.ModuleList) and len(m) > 1
    ]
    return [
        (path, layers)
        for path, layers in lists
        if len({type(layer) for layer in layers}) == 1
        and layers[0] is not None
        and sum(p.dim() > 1 for p in layers[0].parameters()) > 3
    ]


def gradient_size(layer: nn.Module) -> float:
    """The norm of all gradients of a layer."""
    slopes = [p.grad for p in layer.parameters() if p.grad is not None]
    return math.sqrt(sum(float(slope.square().sum()) for slope in slopes))


def layer_activations(
    visit: Visit, stacks: list[tuple[str, list[nn.Module]]]
) -> tuple[list[str], list[float]]:
    """The name of each layer and the root mean square of its output."""
    names = [f"{path}.{i}" for path, layers in stacks for i in range(len(layers))]
    sizes: dict[str, float] = dict.fromkeys(names, math.nan)

    def hook(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, out: Any) -> None:
            out = out[0] if isinstance(out, tuple | list) else out
            if isinstance(out, Tensor):
                sizes[name] = float(out.detach().float().square().mean().sqrt())

        return note

    flat = [layer for _, layers in stacks for layer in layers]
    hooks = [
        layer.register_forward_hook(hook(name))
        for name, layer in zip(names, flat, strict=True)
    ]
    try:
        visit.logits(*visit.examples)
    finally:
        for handle in hooks:
            handle.remove()
    return names, list(sizes.values())
