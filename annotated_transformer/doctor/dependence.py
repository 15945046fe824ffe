"""What the logits depend on: source, past, positions; not future or neighbors."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.doctor.findings import (
    MASK_CAUSES,
    MIXING,
    NOTHING,
    SAME,
    STRUCTURE,
    change,
    finding,
    healthy,
    proven_first,
    skipped,
)
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.trace import Trace
from annotated_transformer.doctor.visit import Visit


def source_matters(visit: Visit) -> Iterator[Result]:
    """Another source must give other logits, at every target position."""
    name = "the source matters"
    src, tgt = visit.examples
    other = visit.other_source(src)
    before, after = visit.logits(src, tgt), visit.logits(other, tgt)
    if not (before.isfinite().all() and after.isfinite().all()):
        yield unclear(name)
        return
    least = visit.facts["source_effect"] = float(change(after, before)[0].min())
    if least < NOTHING:
        says = f"another source changes the logits by {least:.0e} of their spread"
        causes = ["swapped", "memory_ignored", *MASK_CAUSES, "batch_axis"]
        yield proven_first(
            visit, name, says, causes, ["memory_ignored", "mask_inverted"]
        )
    else:
        yield healthy(
            name,
            "another source, other logits",
            measured=f"{least:.2g} of their spread",
            expected=f"> {NOTHING}",
        )


def unclear(name: str) -> Result:
    """What depends on what can't be told of NaN, which is a finding of its own."""
    return skipped(name, "can't be told, for logits are not finite")


def past_matters(visit: Visit) -> Iterator[Result]:
    """Each earlier target token must matter for the prediction after a later one."""
    name = "the target's past matters"
    effects = leak_map(visit)
    visit.pictures["leak"] = {"target": effects.tolist()}
    if not effects.isfinite().all():
        yield unclear(name)
        return
    least = float(effects[-1, :-1].min())
    if least < NOTHING:
        says = f"an earlier target token changes a later prediction by {least:.0e} of "
        says += "the logits' spread"
        causes = [*MASK_CAUSES, "batch_axis", "memory_ignored"]
        yield proven_first(visit, name, says, causes, ["mask_inverted", "mask_axis"])
    elif (own := float(effects.diagonal().min())) < NOTHING:
        says = f"the token at a position changes the logits there by {own:.0e} of "
        says += "their spread: they belong to another position"
        yield finding(name, says, "outputs_shifted", weight=STRUCTURE)
    else:
        yield healthy(
            name,
            "every earlier token matters",
            measured=f"{least:.2g}",
            expected=f"> {NOTHING}",
        )


def leak_map(visit: Visit) -> Tensor:
    """[i, j]: how much the logits at i change when target token j does; rows i."""
    *src, tgt = (ids[:1] for ids in visit.examples)
    whole = visit.real(tgt)[0].sum()
    tgt = tgt[:, :whole]
    before = visit.logits(*src, tgt)
    columns = []
    for j in range(tgt.size(1)):
        other = tgt.clone()
        other[0, j] = another(visit, tgt[0, j])
        columns.append(change(visit.logits(*src, other), before)[0])
    return torch.stack(columns, 1).detach().cpu()


def another(visit: Visit, word: Tensor) -> Tensor:
    """A random word that is another one."""
    words = visit.words(1, 2)[0]
    return words[0] if int(words[0]) != int(word) else words[1]


def future_is_hidden(visit: Visit) -> Iterator[Result]:
    """No logits may change with a later token, nor have a gradient there."""
    name = "the future is hidden"
    effects = torch.tensor(visit.pictures["leak"]["target"])
    ahead = effects.triu(1)
    most = float(ahead.nan_to_num(0.0).max())
    slope = future_gradient(visit)
    visit.facts["future_gradient"] = slope
    if most > SAME or (slope or 0.0) > SAME:
        i, j = divmod(int(ahead.nan_to_num(0.0).argmax()), effects.size(1))
        says = f"the logits at position {i} change by {most:.2g} of their spread when "
        says += f"token {j}, {j - i} later, is changed"
        causes = [*MIXING, *MASK_CAUSES, "causal_mask_missing", "memory_ignored"]
        yield proven_first(
            visit, name, says, causes, ["causal_mask_missing", "mask_tiny"]
        )
    else:
        words = "no prediction depends on a later token, by change"
        words += "" if slope is None else " and by gradient"
        yield healthy(
            name, words, measured=f"{max(most, slope or 0):.0e}", expected=f"< {SAME}"
        )


def future_gradient(visit: Visit) -> float | None:
    """The largest gradient of logits with respect to later embeddings, relative.

    None, if the target's embeddings are not an `nn.Embedding` of the module.
    """
    logits, vectors = with_embeddings(visit)
    if vectors is None or not logits.requires_grad:
        return None
    mix = torch.randn(logits.size(-1), generator=visit.generator).to(logits)
    rows = []
    for goal in logits[0] @ mix:  # of each position
        (slope,) = torch.autograd.grad(
            goal, vectors, retain_graph=True, materialize_grads=True
        )
        rows.append(slope.float().norm(dim=-1).flatten())
    table = torch.stack(rows).nan_to_num(0.0)
    return float(table.triu(1).max() / table.max().clamp(min=1e-30))


def with_embeddings(visit: Visit) -> tuple[Tensor, Tensor | None]:
    """Logits of one sentence, and the target's embeddings that they were made from."""
    *src, tgt = (ids[:1] for ids in visit.examples)
    taken: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        same = args and isinstance(args[0], Tensor) and args[0].numel() == tgt.numel()
        if same and torch.equal(args[0].flatten(), tgt.flatten()) and out.requires_grad:
            taken.append(out)

    modules = visit.module.modules() if visit.module is not None else ()
    hooks = [
        m.register_forward_hook(take) for m in modules if isinstance(m, nn.Embedding)
    ]
    try:
        logits = visit.output(*src, tgt)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, taken[-1] if taken else None


def positions_matter(visit: Visit) -> Iterator[Result]:
    """The order of the source must matter, and the place of a target token."""
    name = "positions matter"
    sides = dict.fromkeys(("source", "target"), "")
    if visit.patient.decoder_only:
        del sides["source"]
    else:
        src, tgt = (ids[:1] for ids in visit.examples)
        turned = src.clone()
        turned[0, :-1] = src[0, :-1].flip(0)
        effect = change(visit.logits(turned, tgt), visit.logits(src, tgt))
        if float(effect.max()) < NOTHING:
            sides["source"] = "turning the source around changes nothing"
    if places_look_alike(visit):
        sides["target"] = "one word repeated gives the same logits at every place"
    wrong = "; ".join(words for words in sides.values() if words)
    ignored = visit.facts.get("source_effect", 1.0) < NOTHING  # so is its order
    if ignored or "memory_ignored" in visit.proven or "swapped" in visit.proven:
        wrong = sides["target"]
    if wrong:
        yield finding(name, wrong, "positions_missing", weight=STRUCTURE - 20)
    else:
        yield healthy(name, f"on the {' and the '.join(sides)} side")


def places_look_alike(visit: Visit) -> bool:
    """Whether a word repeated is told apart by its place: in logits, or in scores.

    Relative positions change no logits here, for all values are equal; scores show
    them.
    """
    *src, tgt = (ids[:1] for ids in visit.examples)
    sizes = visit.patient.src_vocab_size, visit.patient.vocab_size
    word = int(visit.words(1, 1, source=bool(sizes[0] and sizes[0] < sizes[1])))
    *src, same = (torch.full_like(ids, word) for ids in (*src, tgt))
    try:
        trace = Trace(visit.logits, **visit.named((*src, same)))
    except Exception:
        return False
    logits = trace.logits
    if not logits.isfinite().all():
        return False
    if float(change(logits, logits[:, :1]).max()) > SAME:
        return False
    for attention in trace.of_kind("decoder"):
        last = attention.scores[:, -1]
        last = last.masked_fill(last.abs() > 1e3, torch.nan)
        spread = last.nan_to_num(0.0).amax(-1) - last.nan_to_num(0.0).amin(-1)
        if last.isfinite().all() and float(spread.max()) > 1e-4:
            return False
    return bool(trace.attentions)


def padding_is_hidden(visit: Visit) -> Iterator[Result]:
    """More padding behind the source must change nothing."""
    name = "padding is hidden"
    if visit.patient.pad is None:
        yield skipped(name, "give pad, its id")
        return
    src, tgt = (ids[:1] for ids in visit.examples)
    wide = F.pad(src, (0, 4), value=visit.patient.pad)
    before, after = visit.logits(src, tgt), visit.logits(wide, tgt)
    if not before.isfinite().all():
        yield unclear(name)
        return
    effect = visit.facts["padding_effect"] = float(change(after, before).max())
    if not effect < SAME:
        says = f"four more padding tokens change the logits by {effect:.2g} of "
        says += "their spread"
        causes = [*MASK_CAUSES, "padding_mask_missing", *MIXING]
        others = [] if any(c in visit.proven for c in causes) else list(MASK_CAUSES[:1])
        yield proven_first(visit, name, says, causes, ["padding_mask_missing", *others])
    else:
        yield healthy(
            name,
            "more padding changes nothing",
            measured=f"{effect:.0e}",
            expected=f"< {SAME}",
        )


def rows_are_independent(visit: Visit) -> Iterator[Result]:
    """A sentence alone, with others, or in another order: the same logits."""
    name = "sentences are independent"
    real = visit.real(visit.examples[-1])
    together = visit.logits(*visit.examples)
    alone = torch.cat([
        visit.logits(*(ids[i : i + 1] for ids in visit.examples))
        for i in range(len(real))
    ])  # fmt: skip
    order = torch.tensor([2, 0, 1], device=real.device)
    turned = visit.logits(*(ids[order] for ids in visit.examples))
    effects = [change(alone, together), change(turned, together[order])]
    worst = max(
        float(e[r].nan_to_num(0.0).max())
        for e, r in zip(effects, (real, real[order]), strict=True)
    )
    if worst > SAME:
        says = "a sentence's logits change with its neighbors in the batch, by "
        says += f"{worst:.2g} of their spread"
        causes = [*MIXING, *MASK_CAUSES]
        proven = any(cause in visit.proven for cause in causes)
        others = ["norm_axis", "batch_axis"] if proven else ["mask_axis", "batch_axis"]
        yield proven_first(visit, name, says, causes, others)
    else:
        yield healthy(
            name,
            "alone or in a batch: the same",
            measured=f"{worst:.0e}",
            expected=f"< {SAME}",
        )


def calls_are_independent(visit: Visit) -> Iterator[Result]:
    """A batch must give the same logits after another one of its shape, or alone."""
    name, patient = "calls are independent", visit.patient
    if patient.pad is None or not visit.facts.get("padding_effect", 1.0) < SAME:
        return  # padding would explain all; or there is none, or no source
    lengths = [(13, 6), (9, 4), (5, 5)]  # source lengths that nothing has been tried on
    first, second = (visit.sentences(each) for each in (lengths[::-1], lengths))
    visit.logits(first[0], first[1][:, :-1])
    tgt = second[1][:, :-1]
    after = visit.logits(second[0], tgt)
    alone = visit.logits(F.pad(second[0], (0, 3), value=patient.pad), tgt)
    real = visit.real(tgt)
    worst = float(change(after, alone)[real].nan_to_num(0.0).max())
    if worst > SAME:
        says = "a batch's logits change with the batch before it, of the same shape, "
        says += f"by {worst:.2g} of their spread"
        yield finding(name, says, "state_kept", weight=STRUCTURE + 5)
    else:
        yield healthy(name, "nothing is left of the batch before")
