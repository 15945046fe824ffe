"""Causes that a model's structure proves, found in the trace of one forward pass."""

import math
from collections.abc import Iterator
from statistics import median

import torch
from torch import Tensor

from annotated_transformer.doctor.anatomy import (
    VISIBLE,
    changed_positions,
    joined_wrongly,
    residuals,
    seen_keys,
    wrong_norms,
)
from annotated_transformer.doctor.recorder import ACTIVATIONS, SHAPES
from annotated_transformer.doctor.trace import Attention, Trace
from annotated_transformer.doctor.visit import Visit

Proof = tuple[str, str, str, str]  # cause, words, measured, expected
LARGE_SCORES = 12.0  # a score's standard deviation that leaves softmax one winner
SMALL_TOKENS = 0.1  # tokens' size over the positions'


def proofs(visit: Visit) -> Iterator[Proof]:
    """Every cause that the trace shows, what explains others first."""
    trace = visit.trace
    if trace is None or not trace.attentions:
        return
    yield from constant_logits(visit)
    yield from unregistered(visit, trace)
    yield from wrong_axes(visit, trace)
    yield from wrong_sources(visit, trace)
    yield from mixed_heads(visit, trace)
    yield from wrong_masks(visit)
    yield from mixing_norms(visit, trace)
    yield from wrong_scores(visit, trace)
    yield from missing_residuals(trace)
    yield from clipped_output(trace)
    yield from wrong_positions(visit, trace)


def constant_logits(visit: Visit) -> Iterator[Proof]:
    """Logits that are the same whatever goes in, and parameters that are all zero."""
    logits = visit.logits(*visit.examples)
    module = visit.module
    if module is None or (logits - logits[:1, :1]).abs().max() > 1e-6:
        return
    named = [(n, p) for n, p in module.named_parameters() if not n.endswith("bias")]
    zero = [n for n, p in named if not p.any()]
    if zero:
        yield (
            "zero_weights",
            f"the logits are the same whatever goes in; {len(zero)} of {len(named)} "
            f"weights and gains are all zero: {', '.join(zero[:3])}",
            f"{len(zero)} are zero",
            "none",
        )


def clipped_output(trace: Trace) -> Iterator[Proof]:
    """An activation after the last layer."""
    node = trace.nodes[-1]
    while node.named(SHAPES) and len(node.inputs) == 1:
        node = node.inputs[0]
    if node.named(ACTIVATIONS):
        yield (
            "output_activation",
            f"the logits come out of {node.op.rstrip('_')}",
            f"{float(trace.logits.min()):.2g} to {float(trace.logits.max()):.2g}",
            "of a linear layer",
        )


def unregistered(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """Parameters that computed something, and that `parameters()` does not list."""
    if visit.module is None:
        return
    known = {p.data_ptr() for p in visit.module.parameters()}
    hidden = [leaf for leaf in trace.leaves if leaf.data_ptr() not in known]
    if hidden:
        n = sum(leaf.numel() for leaf in hidden)
        yield (
            "unregistered",
            f"{len(hidden)} parameters ({n:,} numbers) work in forward, but "
            "parameters() does not list them: no optimizer will change them, no "
            "state_dict holds them",
            f"{len(hidden)} parameters",
            "0",
        )


def wrong_axes(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """Attention among the sentences of a batch, or softmax over the queries."""
    rows = visit.examples[0].size(0)
    among = [a for a in trace.attentions if a.weights.shape[-2:] == (rows, rows)]
    if among:
        yield (
            "batch_axis",
            f"attention runs among the {rows} sentences of a batch, not among the "
            "positions of each",
            f"weights of {rows} x {rows}",
            "weights of length x length",
        )
    elif counted := trace.added_by_row(rows):
        yield (
            "batch_axis",
            f"the vectors added to the {counted} differ by sentence, not by position",
            "one position for each sentence",
            "one for each token",
        )
    wrong = [a for a in trace.attentions if not a.over_keys]
    if wrong:
        yield (
            "softmax_axis",
            f"softmax runs over the queries in {len(wrong)} of "
            f"{len(trace.attentions)} attentions: a query's weights sum to "
            f"{range_of(wrong[0].weights.sum(-1))}, not to 1",
            range_of(wrong[0].weights.sum(-1)),
            "1",
        )


def wrong_sources(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """Cross-attention the wrong way round, or none."""
    if visit.patient.decoder_only:
        return
    if trace.of_kind("reversed"):
        yield (
            "swapped",
            "the source asks and the target answers in cross-attention",
            "queries from the source",
            "queries from the target",
        )
    elif (
        trace.of_kind("decoder")
        and not trace.of_kind("cross")
        and blind_to_source(visit)
    ):
        n = len(trace.of_kind("decoder"))
        yield (
            "memory_ignored",
            f"of {n} attentions in the decoder, none takes its keys from the source",
            "0 attentions to the source",
            "1 in each layer",
        )


def blind_to_source(visit: Visit) -> bool:
    """Whether another source changes no logits; one sequence may hold both sides."""
    src, tgt = (ids[:1] for ids in visit.examples)
    other = visit.other_source(src)
    return torch.allclose(visit.logits(src, tgt), visit.logits(other, tgt), atol=1e-6)


def mixed_heads(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """One token's change that reaches other positions before any attention.

    In the first layer of each side, query and key of a position depend on its own
    token; later, the heads' outputs must be joined position by position.
    """
    for side, kind in (("src", "encoder"), ("tgt", "decoder")):
        before = trace.of_kind(kind)[:1]
        if not before or side not in trace.ids:
            continue
        changed = {name: ids.clone() for name, ids in trace.ids.items()}
        column = 3
        changed[side][0, column] = other_word(visit, changed[side][0, column])
        after = Trace(visit.logits, **changed).of_kind(kind)[:1]
        if not after:
            continue
        reached = changed_positions(before[0].query, after[0].query)
        reached |= changed_positions(before[0].key, after[0].key)
        if len(reached) > 1:
            norms = wrong_norms(trace)
            words = f"position {column}'s token alters the {kind}'s first queries at "
            words += f"{len(reached)} positions: {sorted(reached)}"
            yield (
                "norm_axis" if norms else "heads_mixed",
                words + (f"; {norms[0]}" if norms else ""),
                f"{len(reached)} positions",
                "1",
            )
            return
    joined = [a for a in trace.attentions if joined_wrongly(a)]
    if joined:
        yield (
            "heads_mixed",
            f"{len(joined)} of {len(trace.attentions)} attentions join their heads so "
            "that one output vector holds numbers of several positions",
            f"{len(joined)} attentions",
            "0",
        )


def mixing_norms(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """Norms over other axes, in a model where the last word alters the first logits."""
    norms = wrong_norms(trace)
    if not norms:
        return
    *src, tgt = (ids[:1].clone() for ids in visit.examples)
    before = visit.logits(*src, tgt)
    tgt[0, -1] = other_word(visit, tgt[0, -1])
    after = visit.logits(*src, tgt)
    if not torch.allclose(before[0, 0], after[0, 0], rtol=1e-4, atol=1e-5):
        words = f"a norm's statistics mix positions: {norms[0]}"
        yield "norm_axis", words, norms[0], "over the last axis, d_model, alone"


def wrong_masks(visit: Visit) -> Iterator[Proof]:
    """Masks that show what they should hide, and why; each sentence is alone."""
    if visit.whole is None or visit.padded is None:
        return
    lengths = [ids.size(1) for ids in visit.whole.ids.values()]
    for attention in visit.whole.of_kind("decoder"):
        length = attention.weights.size(-1)
        if length == sum(lengths):
            length = lengths[-1]  # both sides in one sequence, the target last
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        seen, given = (
            seen_keys(weights)[-length:, -length:]
            for weights in (attention.used, attention.weights)
        )
        if seen.shape == allowed.shape:
            yield from wrong_causal(attention, seen, given, allowed.to(seen.device))
    for attention in visit.padded.of_kind("encoder", "cross"):
        real = visit.real(visit.padded.ids["src"])[0]
        seen, given = seen_keys(attention.used), seen_keys(attention.weights)
        if seen.size(-1) == len(real) and not real.all():
            yield from wrong_padding(attention, seen, given, real)


def wrong_causal(
    attention: Attention, seen: Tensor, given: Tensor, allowed: Tensor
) -> Iterator[Proof]:
    """What is wrong with a causal mask, from the keys (query, key) that are seen."""
    ahead, hidden = seen & ~allowed, ~seen & allowed
    measured = f"{int(ahead.sum())} future keys seen, {int(hidden.sum())} past hidden"
    proof = (measured, "0 and 0")
    if ahead.any() and hidden.sum() > allowed.size(0) - 1:
        turned = bool(seen.diagonal().all())
        cause = "mask_axis" if turned else "mask_inverted"
        yield cause, f"the decoder sees the future and not the past: {measured}", *proof
    elif ahead.any() and not (ahead.triu(2)).any() and not hidden.any():
        words = f"each position sees the next one: {measured}"
        yield "mask_shifted", words, *proof
    elif ahead.any():
        yield (
            unmasked(attention, "causal_mask_missing"),
            f"the decoder sees the future: {int(ahead.sum())} of "
            f"{int((~allowed).sum())} later keys have weight{filled(attention)}",
            *proof,
        )
    elif (given & ~allowed).any():
        yield late_mask(attention)


def wrong_padding(
    attention: Attention, seen: Tensor, given: Tensor, real: Tensor
) -> Iterator[Proof]:
    """What is wrong with a padding mask, for one sentence with padded keys."""
    queries = real if attention.kind == "encoder" else torch.ones_like(seen[:, 0])
    on_padding = seen[queries][:, ~real].any()
    on_words = seen[queries][:, real].any()
    place_of = "the encoder" if attention.kind == "encoder" else "cross-attention"
    proof = ("weight on padding", "none")
    if on_padding and not on_words:
        words = f"{place_of} looks at padding, and at no word"
        yield "mask_inverted", words, *proof
    elif on_padding:
        cause = unmasked(attention, "padding_mask_missing")
        if attention.kind == "encoder" and not (~queries).all():
            level = attention.weights.std(-1).amin(0)
            blank = level.nan_to_num(0.0)[~queries].max() < VISIBLE
            words_vary = level.nan_to_num(0.0)[queries].max() > VISIBLE
            if blank and words_vary and attention.masks:
                cause = "mask_axis"
        yield (
            cause,
            f"{place_of} gives weight to padding"
            + (
                ": the mask hides rows (queries), not columns (keys)"
                if cause == "mask_axis"
                else filled(attention)
            ),
            *proof,
        )
    elif given[queries][:, ~real].any():
        yield late_mask(attention)


def unmasked(attention: Attention, otherwise: str) -> str:
    """Why a mask does not hide: its value is small, it comes late, or there is none."""
    if any(value < 1e3 for _, value in attention.masks):
        return "mask_tiny"
    return "mask_after_softmax" if attention.masks_after else otherwise


def filled(attention: Attention) -> str:
    """The value that a mask filled in, in words."""
    small = [value for _, value in attention.masks if value < 1e3]
    if small:
        return f"; masked scores get {small[0]:g}, which softmax does not notice"
    if attention.masks_after:
        return f"; a mask comes after softmax ({attention.masks_after[0]})"
    return "" if attention.masks else "; nothing masks the scores"


def late_mask(attention: Attention) -> Proof:
    """A mask that comes after softmax, as a proof."""
    sums = range_of(attention.used.sum(-1))
    return (
        "mask_after_softmax",
        f"a mask is applied after softmax in the {attention.kind}'s attention: hidden "
        f"keys still took weight, and a query's weights sum to {sums}, not to 1",
        f"weights sum to {sums}",
        "1",
    )


def wrong_scores(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """Scores with the wrong factor, or so large that softmax has one winner."""
    for attention in trace.attentions:
        if all(map(of_one_length, (attention.query, attention.key))):
            continue  # normalized before they meet: a larger factor is meant
        d_k = attention.query.size(-1)
        ratio = attention.scale * math.sqrt(d_k)
        inside = rms(attention.query) * math.sqrt(d_k) < 2 * rms(attention.key)
        if 0.8 < ratio < 1.25 or (ratio > 1 and inside):  # as T5: in its weights
            continue
        yield (
            "scale_missing" if ratio > 1 else "scale_twice",
            f"scores are query @ key times {attention.scale:.3g}; 1/sqrt(d_k) is "
            f"{d_k**-0.5:.3g} (d_k = {d_k}, {attention.kind})",
            f"{attention.scale:.3g}",
            f"{d_k**-0.5:.3g}",
        )
        break
    if visit.patient.trained:
        return
    spread = median(finite_std(a.scores) for a in trace.attentions)
    if spread > LARGE_SCORES:
        yield (
            "init_large",
            f"attention scores have a standard deviation of {spread:.3g} (median of "
            "the attentions): softmax has one winner from the start",
            f"{spread:.3g}",
            "about 1",
        )


def missing_residuals(trace: Trace) -> Iterator[Proof]:
    """Sub-layers whose output is not added to their input."""
    added, judged = residuals(trace)
    if added < judged:
        yield (
            "residual_missing",
            f"{judged - added} of {judged} sub-layers are not added to their input",
            f"{added} of {judged} added",
            "all",
        )


def wrong_positions(visit: Visit, trace: Trace) -> Iterator[Proof]:
    """A table of sinusoids that is none, or positions that are far too large."""
    for side in trace.ids:
        found = trace.positions(side)
        if found is None:
            continue
        tokens, positions = found
        if wrong := wrong_waves(positions):
            yield "positions_wrong", f"the sinusoids are no such: {wrong}", wrong, ""
            return
        ratio = rms(tokens) / max(rms(positions), 1e-30)
        if ratio < SMALL_TOKENS and not visit.patient.trained:
            yield (
                "embeddings_small",
                f"token embeddings are {1 / max(ratio, 1e-9):.0f} times smaller than "
                f"the positions added to them ({rms(tokens):.2g} against "
                f"{rms(positions):.2g}, root mean square)",
                f"{ratio:.2g}",
                f"at least {SMALL_TOKENS}",
            )
            return


def wrong_waves(table: Tensor) -> str:
    """What is wrong with a table (length, d_model) of sinusoids; "" if nothing is.

    Waves may alternate (sine, cosine) or stand in halves. A table that does not look
    like sinusoids, as a learned one, is not judged.
    """
    table = table.double()
    size = table[0].abs().max().item()
    d_model = table.size(1)
    if d_model % 2 or not size:
        return ""
    first = table[0] / size
    if not ((first.abs() < 1e-4) | ((first - 1).abs() < 1e-4)).all():
        return ""  # does not begin as sines and cosines of 0
    half = d_model // 2
    layouts = [(table[:, ::2], table[:, 1::2]), (table[:, :half], table[:, half:])]
    for sine, cosine in layouts:
        if torch.allclose(
            sine.square() + cosine.square(), torch.tensor(size**2).double(), rtol=1e-3
        ):
            break
    else:
        return "sine and cosine of a pair do not belong to one wave"
    angle = torch.atan2(sine, cosine).abs()
    last = len(table) - 1
    slow = angle[1] * last < math.pi / 2
    speeds = torch.where(slow, angle[last] / last, angle[1])  # radians per position
    if not 0.5 < speeds[0] < 1.5:
        return f"the fastest turns {speeds[0]:.3g} radians a position, not 1"
    steps = (speeds[:-1] / speeds[1:].clamp(min=1e-12)).log()
    if steps.min() < 1e-4:
        return (
            f"of {half} wavelengths, only "
            f"{len(set(speeds.log().mul(1e3).round().tolist()))} differ"
        )
    if steps.std() > 0.1 * steps.mean():
        return "the wavelengths do not grow by one factor"
    return ""


def other_word(visit: Visit, word: Tensor) -> Tensor:
    """A token that is another one, from the smaller vocabulary."""
    sizes = visit.patient.vocab_size, visit.patient.src_vocab_size
    last = min(size for size in sizes if size) - 1
    return word.new_tensor(last if int(word) != last else last - 1)


def of_one_length(vectors: Tensor) -> bool:
    """Whether all vectors, along the last axis, are equally long."""
    lengths = vectors.detach().float().norm(dim=-1)
    return float(lengths.std()) < 1e-3 * float(lengths.mean())


def rms(x: Tensor) -> float:
    """The root mean square of all numbers."""
    return float(x.detach().double().square().mean().sqrt())


def finite_std(x: Tensor) -> float:
    """The standard deviation of the scores that no mask has changed."""
    kept = x[x.abs() < 1e3]
    kept = x[x.isfinite() & (x.abs() < 1e6)] if kept.numel() < 2 else kept
    return float(kept.std()) if kept.numel() > 1 else 0.0


def range_of(x: Tensor) -> str:
    """The smallest and the largest of some numbers."""
    low, high = float(x.min()), float(x.max())
    return f"{low:.2f} to {high:.2f}"
