"""Examinations of the wiring: what depends on what, masks, gradients, parameters."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.doctor.evidence import proofs
from annotated_transformer.doctor.report import FINDING, HEALTHY, NOTE, SKIPPED, Result
from annotated_transformer.doctor.trace import Trace
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

NOTHING = 1e-5  # a relative change of the logits below it is rounding
SAME = 1e-4  # two ways to compute the same logits agree to this
Examination = Callable[[Visit], Iterator[Result]]
MASK_CAUSES = ("mask_inverted", "mask_axis", "mask_after_softmax", "mask_tiny")
MIXING = ("batch_axis", "softmax_axis", "norm_axis", "heads_mixed")
PROVEN_WEIGHT, SYMPTOM_WEIGHT = 80.0, 40.0
LONG = 600  # positions tried beyond which no table is looked for


def wiring(visit: Visit) -> list[Examination]:
    """The examinations that every patient gets, in order."""
    encoder: list[Examination] = [source_matters, padding_is_hidden, blank_source]
    both: list[Examination] = [
        structure,
        starting_loss,
        past_matters,
        positions_matter,
        future_is_hidden,
        rows_are_independent,
        dropout_happens,
        layers_are_distinct,
        ties_are_real,
        gradients_arrive,
        sizes_by_depth,
        long_inputs,
        half_precision,
    ]
    return both if visit.patient.decoder_only else both[:2] + encoder + both[2:]


def change(new: Tensor, old: Tensor) -> Tensor:
    """How much logits have changed, relative to their spread: (batch, tgt)."""
    spread = old.float().std().clamp(min=1e-12)
    return (new - old).abs().amax(-1) / spread


def finding(
    visit: Visit, name: str, says: str, causes: Sequence[str], others: Sequence[str]
) -> Result:
    """A symptom: of `causes`, those that the trace has proven come before `others`."""
    proven = [cause for cause in causes if cause in visit.proven]
    order = dict.fromkeys([*proven, *others])
    return Result(
        examination=name,
        kind=FINDING,
        says=says,
        causes=tuple(order),
        weight=SYMPTOM_WEIGHT,
    )


def healthy(name: str, says: str, measured: str = "", expected: str = "") -> Result:
    """An examination that found nothing wrong."""
    return Result(
        examination=name,
        kind=HEALTHY,
        says=says,
        measured=measured,
        expected=expected,
    )


def structure(visit: Visit) -> Iterator[Result]:
    """What the trace of a forward pass proves."""
    name = "structure"
    trace = visit.trace
    if trace is None or not trace.attentions:
        why = visit.facts.get("not_traced", "no attention was recognized in forward")
        yield Result(examination=name, kind=SKIPPED, says=f"the structure: {why}")
        return
    found: dict[str, tuple[str, str, str]] = {}
    for cause, *words in proofs(visit):
        found.setdefault(cause, (words[0], words[1], words[2]))
    for rank, (cause, (says, measured, expected)) in enumerate(found.items()):
        visit.proven[cause] = says
        yield Result(
            examination=name,
            kind=FINDING,
            says=says,
            measured=measured,
            expected=expected,
            causes=(cause,),
            weight=PROVEN_WEIGHT - rank,
        )
    if not found:
        n = len(trace.attentions)
        yield healthy(
            name,
            f"{n} attentions: scale, softmax, masks, heads and residuals are right",
        )


def starting_loss(visit: Visit) -> Iterator[Result]:
    """Before training, every token should look about equally likely."""
    name, patient = "loss at the start", visit.patient
    logits = visit.logits(*visit.examples)
    if not logits.isfinite().all():
        share = float((~logits.isfinite()).float().mean())
        says = f"{share:.0%} of the logits on padded sentences are not finite"
        yield finding(
            visit,
            name,
            says,
            [*MASK_CAUSES, "init_large"],
            ["mask_inverted", "init_large"],
        )
        return
    labels = visit.words(*logits.shape[:2])
    loss = F.cross_entropy(as_logits(logits).flatten(0, 1), labels.flatten()).item()
    floor = math.log(patient.vocab_size)
    visit.facts |= {"starting_loss": loss, "ln_vocab": floor}
    if patient.trained:
        yield healthy(name, "not judged: the model is trained")
    elif loss > floor + 4:
        says = f"the loss on random words is {loss:.1f}; ln {patient.vocab_size} = "
        says += f"{floor:.1f} is what guessing costs"
        yield finding(visit, name, says, ["init_large"], ["init_large"])
    else:
        yield healthy(
            name,
            "the loss on random words is that of guessing",
            f"{loss:.2f}",
            f"{floor:.2f}",
        )


def as_logits(output: Tensor) -> Tensor:
    """Logits for what may be probabilities."""
    sums = output.sum(-1)
    if (output >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return output.clamp(min=1e-30).log()
    return output


def source_matters(visit: Visit) -> Iterator[Result]:
    """Another source must give other logits, at every target position."""
    name = "the source matters"
    src, tgt = visit.examples
    other = src.clone()
    other[0, :-1] = visit.words(1, src.size(1) - 1, source=True)[0]
    before, after = visit.logits(src, tgt), visit.logits(other, tgt)
    effect = change(after, before)[0]
    least = float(effect.nan_to_num(0.0).min())
    if least < NOTHING:
        says = f"another source changes the logits by {least:.0e} of their spread"
        causes = ["swapped", "memory_ignored", *MASK_CAUSES, "batch_axis"]
        yield finding(visit, name, says, causes, ["memory_ignored", "mask_inverted"])
    else:
        yield healthy(
            name, "another source, other logits", f"{least:.2g}", f"> {NOTHING}"
        )


def past_matters(visit: Visit) -> Iterator[Result]:
    """Each earlier target token must matter for the prediction after a later one."""
    name = "the target's past matters"
    effects = leak_map(visit)
    visit.pictures["leak"] = {"target": effects.tolist()}
    past = effects.tril(-1)
    least = float(past[-1, :-1].nan_to_num(0.0).min())
    if least < NOTHING:
        says = f"an earlier target token changes a later prediction by {least:.0e} of "
        says += "the logits' spread"
        causes = [*MASK_CAUSES, "batch_axis", "memory_ignored"]
        yield finding(visit, name, says, causes, ["mask_inverted", "mask_axis"])
    else:
        yield healthy(
            name, "every earlier token matters", f"{least:.2g}", f"> {NOTHING}"
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
        yield finding(visit, name, says, causes, ["causal_mask_missing", "mask_tiny"])
    else:
        words = "no prediction depends on a later token, by change"
        words += "" if slope is None else " and by gradient"
        yield healthy(name, words, f"{max(most, slope or 0):.0e}", f"< {SAME}")


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

    modules = visit.module.modules() if visit.module else ()
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
    if "memory_ignored" in visit.proven or "swapped" in visit.proven:
        wrong = sides["target"]
    if wrong:
        yield finding(visit, name, wrong, ["positions_missing"], ["positions_missing"])
    else:
        yield healthy(name, f"on the {' and the '.join(sides)} side")


def places_look_alike(visit: Visit) -> bool:
    """Whether a word repeated is told apart by its place: in logits, or in scores.

    Relative positions change no logits here, for all values are equal; scores show
    them.
    """
    *src, tgt = (ids[:1] for ids in visit.examples)
    same = tgt.clone()
    same[:] = tgt[0, 2]
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
        yield Result(examination=name, kind=SKIPPED, says="padding: give pad, its id")
        return
    src, tgt = (ids[:1] for ids in visit.examples)
    wide = F.pad(src, (0, 4), value=visit.patient.pad)
    effect = change(visit.logits(wide, tgt), visit.logits(src, tgt)).max()
    if not float(effect) < SAME:
        says = f"four more padding tokens change the logits by {float(effect):.2g} of "
        says += "their spread"
        causes = [*MASK_CAUSES, "padding_mask_missing", *MIXING]
        others = [] if any(c in visit.proven for c in causes) else list(MASK_CAUSES[:1])
        yield finding(visit, name, says, causes, ["padding_mask_missing", *others])
    else:
        yield healthy(
            name, "more padding changes nothing", f"{float(effect):.0e}", f"< {SAME}"
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
        yield finding(
            visit, name, says, [*MIXING, *MASK_CAUSES], ["norm_axis", "batch_axis"]
        )
    else:
        yield healthy(
            name, "alone or in a batch: the same", f"{worst:.0e}", f"< {SAME}"
        )


def repeats(visit: Visit) -> Iterator[Result]:
    """Twice the same logits in `eval()`."""
    name = "eval() repeats"
    first, second = visit.logits(*visit.examples), visit.logits(*visit.examples)
    differ = float(change(second, first).nan_to_num(0.0).max())
    if differ > NOTHING:
        says = f"in eval(), two runs differ by {differ:.2g} of the logits' spread"
        result = finding(visit, name, says, [], ["dropout_in_eval"])
        yield replace(result, weight=PROVEN_WEIGHT + 15)
    else:
        yield healthy(name, "in eval(), two runs are equal")


def dropout_happens(visit: Visit) -> Iterator[Result]:
    """Not twice the same in `train()`, where dropout is set."""
    name, module = "dropout happens", visit.module
    drops = [
        m
        for m in (module.modules() if module else ())
        if isinstance(m, nn.Dropout) and m.p > 0
    ]
    if module is None or not drops:
        return
    module.train()
    first, second = visit.logits(*visit.examples), visit.logits(*visit.examples)
    module.eval()
    differ = float(change(second, first).nan_to_num(0.0).max())
    if differ < NOTHING:
        says = f"in train(), two runs are equal, though dropout is set ({drops[0].p})"
        yield finding(visit, name, says, [], ["dropout_never"])
    else:
        yield healthy(name, "in train(), two runs differ")


def layers_are_distinct(visit: Visit) -> Iterator[Result]:
    """No layer may stand at several places of a stack."""
    name = "layers are distinct"
    stacks = [
        (path, list(m))
        for path, m in (visit.module.named_modules() if visit.module else ())
        if isinstance(m, nn.ModuleList | nn.Sequential)
    ]
    for path, layers in stacks:
        own = [layer for layer in layers if has_parameters(layer)]
        if len({id(layer) for layer in own}) < len(own):
            n = len({id(layer) for layer in own})
            says = f"{path or 'the stack'} has {len(own)} places and {n} "
            says += f"{type(own[0]).__name__}"
            result = finding(visit, name, says, [], ["shared_layer"])
            yield replace(result, weight=PROVEN_WEIGHT)
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
    named = list(visit.module.named_parameters() if visit.module else ())
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
                result = finding(visit, name, says, [], ["tied_copy"])
                yield replace(result, weight=PROVEN_WEIGHT)
                return
    yield healthy(name, "no copies of the embeddings")


def gradients_arrive(visit: Visit) -> Iterator[Result]:
    """Every parameter must get a gradient from the loss."""
    name = "gradients arrive"
    if visit.module is None:
        yield Result(
            examination=name,
            kind=SKIPPED,
            says="gradients and parameters: give the module that holds the weights",
        )
        return
    named = [(n, p) for n, p in visit.module.named_parameters() if p.requires_grad]
    if not backward(visit):
        says = "the logits have no gradient: nothing can be learned"
        yield finding(visit, name, says, [], ["unused_parameters", "encoder_detached"])
        return
    without = [
        n for n, p in named if p.grad is None or not p.grad.nan_to_num(1.0).any()
    ]
    if not without:
        yield healthy(name, f"at all {len(named)} parameters")
        return
    used = {leaf.data_ptr() for leaf in visit.trace.leaves} if visit.trace else set()
    cut = [n for n, p in named if n in without and p.data_ptr() in used]
    source = source_parameters(visit)
    says = f"{len(without)} of {len(named)} parameters get no gradient: "
    says += ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    causes = ["unused_parameters", "encoder_detached"]
    if cut and set(cut) <= source:
        causes.reverse()
    result = finding(
        visit,
        name,
        says,
        ["memory_ignored", "swapped", "mask_inverted", "shared_layer"],
        causes,
    )
    strong = PROVEN_WEIGHT - 5 if causes[0] == "encoder_detached" else SYMPTOM_WEIGHT
    yield replace(result, weight=strong)


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
    assert visit.module is not None
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
    stacks = [
        (path, list(m))
        for path, m in (visit.module.named_modules() if visit.module else ())
        if isinstance(m, nn.ModuleList) and len(m) > 1
    ]
    stacks = [
        (path, layers)
        for path, layers in stacks
        if len({type(layer) for layer in layers}) == 1
        and layers[0] is not None
        and sum(p.dim() > 1 for p in layers[0].parameters()) > 3
    ]
    if not stacks or not all_used(visit):
        yield Result(
            examination=name, kind=SKIPPED, says="sizes by depth: no stacks of layers"
        )
        return
    names, activations = layer_activations(visit, stacks)
    gradients = [
        math.sqrt(
            sum(
                float(p.grad.square().sum())
                for p in layer.parameters()
                if p.grad is not None
            )
        )
        for _, layers in stacks
        for layer in layers
    ]
    visit.pictures["depth"] = {
        "names": names,
        "activations": activations,
        "gradients": gradients,
    }
    positive = [g for g in gradients if g > 0]
    if not positive:
        yield Result(
            examination=name, kind=SKIPPED, says="sizes by depth: no gradients"
        )
        return
    ratio = max(positive) / min(positive)
    words = f"{ratio:.2g} times between the layers' gradients"
    if ratio > 1e4 or not math.isfinite(ratio):
        causes = ["init_large", "residual_missing", "scale_missing"]
        yield finding(visit, name, words, causes, ["init_large", "residual_missing"])
    else:
        yield healthy(name, words, f"{ratio:.2g}", "< 10,000")


def all_used(visit: Visit) -> bool:
    """Whether a backward pass is possible."""
    return visit.module is not None and backward(visit)


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


def blank_source(visit: Visit) -> Iterator[Result]:
    """A source of nothing but padding: it may give anything, but no NaN."""
    name, pad = "a blank source", visit.patient.pad
    if pad is None:
        return
    src, tgt = (ids.clone() for ids in visit.examples)
    src[1] = pad
    logits = visit.logits(src, tgt)
    others = logits[[0, 2]]
    if logits.isfinite().all():
        yield healthy(name, "a source that is all padding gives finite logits")
    elif others.isfinite().all():
        yield Result(
            examination=name,
            kind=NOTE,
            says="a source that is all padding gives NaN, as softmax of only -inf "
            "does: leave such rows out",
        )


def long_inputs(visit: Visit) -> Iterator[Result]:
    """How many positions the model takes, and how it refuses more."""
    name, longest = "long inputs", 0
    for length in (16, 64, 128, 256, LONG):
        *src, _ = (ids[:1] for ids in visit.examples)
        long = visit.words(1, length)
        try:
            logits = visit.logits(*src, long)
        except InputError as error:
            yield healthy(name, f"up to {longest}, then it says: {error}")
            return
        except Exception as error:
            yield Result(
                examination=name,
                kind=NOTE,
                says=f"{length} target tokens fail ({longest} do not): "
                f"{type(error).__name__}: {error}"
                ". Check lengths before, with an error of your own",
            )
            return
        if not logits.isfinite().all():
            break
        longest = length
    yield healthy(name, f"{longest} target tokens are taken")


def half_precision(visit: Visit) -> Iterator[Result]:
    """Masks and sums must survive bfloat16 and float16."""
    name, device = "half precision", visit.device.type
    before = visit.logits(*visit.examples)
    for kind in (torch.bfloat16, torch.float16):
        short = str(kind).removeprefix("torch.")
        try:
            with torch.autocast(device, kind):
                after = visit.logits(*visit.examples)
        except Exception as error:
            yield Result(
                examination=name,
                kind=NOTE,
                says=f"autocast to {short} fails: {type(error).__name__}: {error}. "
                "Mask with -inf or torch.finfo(scores.dtype).min, not with -1e9",
            )
            return
        if before.isfinite().all() and not after.isfinite().all():
            yield Result(
                examination=name,
                kind=NOTE,
                says=f"autocast to {short} gives NaN or inf",
            )
            return
    yield healthy(name, "autocast to bfloat16 and float16 stays finite")


# What can be told of a model that gives other logits each time.
STRUCTURAL = (structure, layers_are_distinct, ties_are_real, gradients_arrive)
