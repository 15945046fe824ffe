"""How the patient learns: labels, loss, accumulation, updates, and one batch by heart.

Where a training step is given, the doctor listens to it (see `listen.py`); where only
a loss is given, its gradient is read alone.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from annotated_transformer.doctor.findings import (
    SYMPTOM,
    TRAINING,
    finding,
    guarded,
    healthy,
    note,
    skipped,
    some,
    unexamined,
)
from annotated_transformer.doctor.keep import families, unchanged
from annotated_transformer.doctor.listen import (
    LOGITS,
    LOGS,
    PROBABILITIES,
    Call,
    Reading,
    exchanged,
    fake_output,
    kind_of,
    listen,
    places,
    read,
)
from annotated_transformer.doctor.patient import Batches
from annotated_transformer.doctor.report import HEALTHY, Result
from annotated_transformer.doctor.visit import Visit

# (source words, target words) of sentences. The first two batches tell divisors apart:
# 20 labels in 40 positions and 4 rows, or 8 labels in 8 positions and 2 rows.
PADDED = [(5, 9), (4, 2), (6, 3), (3, 2)]
FULL = [(4, 3), (5, 3)]
EQUAL = [(4, 4)] * 6  # to be cut into 3
SHORT, LONG = [(4, 3)] * 2, [(4, 8)] * 2
PIECES, UPDATES = 3, 5


def learning(visit: Visit) -> Iterator[Result]:
    """Examine labels, loss and training step, as far as they are given."""
    patient = visit.patient
    if patient.train_step is None and patient.loss is None:
        says = (
            "give train_step(batches), which makes one update from a list of "
            "(src, tgt), or loss(logits, labels)"
        )
        yield skipped("training", says)
    for name, examination in EXAMINATIONS.items():
        yield from guarded(examination(visit), partial(unexamined, name))


# The loss, as the training step uses it


def training(visit: Visit) -> Iterator[Result]:
    """Labels, padding, softmax and divisor, heard in the training step."""
    if visit.patient.train_step is None:
        return
    readings = []
    for lengths in (PADDED, FULL):
        batches = [visit.sentences(lengths)]
        if calls := listen(visit, batches):
            readings.append(read(visit, calls, batches))
    if len(readings) < 2:
        says = (
            "train_step did not call the model's forward, or its loss does not come "
            "from the logits that forward returns"
        )
        yield skipped("labels", says)
        return
    padded, full = readings
    starts = Counter(padded.starts + full.starts)
    if starts:
        visit.facts["training_start"] = starts.most_common(1)[0][0]
    yield from labels(visit, padded)
    yield from mode(padded)
    yield from loss_itself(visit, padded, full)


def loss_alone(visit: Visit) -> Iterator[Result]:
    """Padding, softmax and divisor, from a loss that is given without its training."""
    patient = visit.patient
    if patient.loss is None or patient.train_step is not None:
        return
    readings = []
    for lengths in (PADDED, FULL):
        ids = visit.sentences(lengths)
        inputs, labels = (*ids[:-1], ids[-1][:, :-1]), ids[-1][:, 1:]
        with torch.no_grad(), unchanged(patient):
            output = visit.patient(*inputs)
        kind = kind_of(output)
        fake = fake_output(visit, output.shape, kind)
        with unchanged(patient):
            backward_of(patient.loss, fake, labels)
        call = Call(list(inputs), kind, fake)
        readings.append(read(visit, [call], [ids]))
    yield from loss_itself(visit, *readings)


def backward_of(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor
) -> None:
    """The loss's gradient into the logits, in whichever layout the loss takes."""
    layouts = [
        (logits, labels),
        (logits.flatten(0, 1), labels.flatten()),
        (logits.mT, labels),
    ]
    errors = []
    for layout in layouts:
        try:
            loss(*layout).sum().backward()
            return
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            errors.append(error)
    raise errors[0]


def labels(visit: Visit, reading: Reading) -> Iterator[Result]:
    """Whether each label is the token after the one that went in."""
    name, eos = "labels", visit.patient.eos
    words = ~torch.isin(
        reading.label, torch.tensor([*visit.specials]).to(reading.label)
    )
    inside = reading.counts & (reading.given_place <= reading.end)
    known = inside & words & (reading.label_place >= 0)
    steps = (reading.label_place - reading.given_place)[known].tolist()
    ahead, agree = Counter(steps).most_common(1)[0] if steps else (0, 0)
    if agree < 0.6 * (inside & words).sum() or not agree:
        says = "labels could not be told from the gradient"
        visit.facts["labels_unclear"] = True
        yield skipped(name, says)
        return
    measured = f"{ahead:+d} tokens in {agree} of {len(steps)} positions"
    numbers = {"measured": measured, "expected": "+1"}
    if ahead == 1:
        says = "each label is the token after the decoder's input"
        yield healthy(name, says, **numbers)
    elif ahead == 0:
        says = "the decoder is given the label itself: it only learns to copy its input"
        yield finding(name, says, "labels_not_shifted", weight=TRAINING, **numbers)
    else:
        says = f"each label is {ahead} tokens from the decoder's input, not 1 after it"
        causes = ["labels_shifted_twice", "labels_not_shifted"]
        yield finding(
            name, says, *causes[:: 1 if ahead > 1 else -1], weight=TRAINING, **numbers
        )
    if not (inside & (reading.label == eos)).any():
        says = (
            f"the end token ({eos}) is never a label, so decoding will not learn to end"
        )
        ends = len(reading.sentence.unique())
        numbers = {"measured": f"0 of {ends} sentences", "expected": f"{ends}"}
        yield finding(name, says, "end_token_untrained", weight=TRAINING, **numbers)


def mode(reading: Reading) -> Iterator[Result]:
    """Whether dropout, if there is any, was on."""
    if reading.quiet:
        says = (
            "the model was in eval() while it was trained, so that dropout never "
            "happens: train_step, or what calls it, must call train()"
        )
        numbers = {"measured": "eval()", "expected": "train()"}
        yield finding("mode", says, "dropout_never", weight=SYMPTOM, **numbers)


def loss_itself(visit: Visit, padded: Reading, full: Reading) -> Iterator[Result]:
    """Padding, softmax and divisor, from a batch with padding and one without."""
    before = [*softmax(padded), *padding(visit, padded)]
    yield from before
    if all(result.kind == HEALTHY for result in before):
        yield from divisor(visit, padded, full)


def softmax(reading: Reading) -> Iterator[Result]:
    """Whether softmax comes once between the model and the loss."""
    name, kind, form = "softmax", reading.kind, reading.form
    right = {
        LOGITS: ["cross entropy"],
        LOGS: ["cross entropy", "negative"],
        PROBABILITIES: ["negative log"],
    }
    numbers = {
        "measured": f"{form or 'another loss'}, of {kind}",
        "expected": f"{right[kind][-1]}, of {kind}",
    }
    if form in right[kind]:
        says = "the loss is cross entropy: softmax comes once"
        yield healthy(name, says, **numbers)
    elif not form:
        says = (
            "the loss is not cross entropy, or not alone: its parts were not examined"
        )
        yield note(name, says, **numbers)
    else:
        says = f"the model returns {kind}, and the loss takes the {form} of them"
        yield finding(name, says, "softmax_twice", weight=TRAINING, **numbers)


def padding(visit: Visit, reading: Reading) -> Iterator[Result]:
    """Whether only real labels have a gradient."""
    pad, eos = visit.patient.pad, visit.patient.eos
    if pad is None:
        return
    wrong = int(reading.padded(pad, eos).sum())
    beyond = int((reading.given_place >= reading.end).sum())
    numbers = {"measured": f"{wrong} of {beyond} padded positions", "expected": "0"}
    if wrong:
        says = f"padding counts in the loss: {wrong} of {beyond} padded positions do"
        causes = ["padding_in_loss"]
        if visit.facts.get("labels_unclear"):
            says += ", and no position has a gradient that fits one label"
            causes.insert(0, "loss_scrambled")
        yield finding("padding in the loss", says, *causes, weight=TRAINING, **numbers)
    else:
        says = "padding does not count in the loss"
        yield healthy("padding in the loss", says, **numbers)


def total(visit: Visit, reading: Reading) -> float:
    """The summed weight of all real labels: 1 for a mean, their number for a sum."""
    return float(reading.weight[reading.real(visit.patient.pad)].sum())


def divisor(visit: Visit, padded: Reading, full: Reading) -> Iterator[Result]:
    """What the loss is divided by: a batch half padding against one without any."""
    name, pad = "divisor", visit.patient.pad
    share = total(visit, padded) / total(visit, full)
    real = padded.real(pad)
    weights = padded.weight[real]
    numbers = {"measured": f"{share:.2f}", "expected": "1 (mean), more (sum)"}
    n_real, n_all = int(real.sum()), len(padded.counts)
    if share < 0.8:
        says = (
            f"a batch with {n_real} labels in {n_all} positions counts {share:.2f} "
            "times as much as one without padding: the loss is divided by padding, too"
        )
        yield finding(name, says, "mean_over_padding", weight=TRAINING, **numbers)
    elif (weights - weights.mean()).abs().max() > 0.02 * weights.mean().abs():
        says = "labels do not count alike: each sentence's mean may be taken alone"
        yield note(name, says, **numbers)
    else:
        says = "each real label counts alike, however much padding there is"
        yield healthy(name, says, **numbers)


# Micro-batches


def accumulation(visit: Visit) -> Iterator[Result]:
    """Whether pieces give the gradient of the batch that they were cut from."""
    if visit.patient.train_step is None:
        return
    name = "accumulation"
    whole = visit.sentences(EQUAL)
    pieces = list(zip(*(ids.chunk(PIECES) for ids in whole), strict=True))
    totals = []
    for batches in ([whole], pieces):
        calls = listen(visit, batches)
        if not calls:
            return  # `training` has said so
        totals.append(total(visit, read(visit, calls, batches)))
    if any(call.cleared for call in calls):
        says = f"of {PIECES} pieces, the gradient of the last alone reaches the update"
        numbers = {"measured": f"1 of {PIECES}", "expected": f"{PIECES} of {PIECES}"}
        yield finding(name, says, "gradients_cleared", weight=TRAINING, **numbers)
        return
    one, ratio = totals[0], totals[1] / totals[0]
    numbers = {"measured": f"{ratio:.2f}", "expected": "1"}
    says = f"{PIECES} pieces give {ratio:.1f} times the gradient of one batch"
    if abs(ratio - 1) < 0.02:
        yield from means(visit)
    elif abs(ratio - PIECES) < 0.02 * PIECES and is_fraction(one):
        says += f", and one alone counts 1/{round(1 / one)}: the number is fixed"
        yield note(name, says, **numbers)
    elif abs(ratio - PIECES) < 0.02 * PIECES:
        yield finding(
            name, says, "accumulation_not_divided", weight=TRAINING, **numbers
        )
    else:
        yield note(name, says, **numbers)


def is_fraction(weight: float) -> bool:
    """Whether this is 1/2, 1/3, 1/4 and so on."""
    return 0 < weight < 0.9 and abs(1 / weight - round(1 / weight)) < 0.01


def means(visit: Visit) -> Iterator[Result]:
    """Whether a label counts alike in pieces with fewer and with more labels."""
    name = "accumulation"
    batches = [visit.sentences(SHORT), visit.sentences(LONG)]
    reading = read(visit, listen(visit, batches), batches)
    real = reading.real(visit.patient.pad)
    short = real & (reading.end == SHORT[0][1] + 1)
    weights = [float(reading.weight[rows].mean()) for rows in (short, real & ~short)]
    counts = [int(short.sum()), int((real & ~short).sum())]
    ratio, fewer = weights[0] / weights[1], counts[1] / counts[0]
    numbers = {"measured": f"{ratio:.2f}", "expected": "1"}
    if abs(ratio - 1) < 0.02:
        says = f"{PIECES} pieces give the gradient of one batch, unequal ones too"
        yield healthy(name, says, **numbers)
    elif abs(ratio - fewer) < 0.02 * fewer:
        says = (
            f"a label in a piece of {counts[0]} counts {ratio:.2f} times as much as "
            f"one in a piece of {counts[1]}: each piece's mean is taken alone"
        )
        yield note(name, says, "mean_of_means", **numbers)
    else:
        says = f"labels of unequal pieces count {ratio:.2f} to 1"
        yield note(name, says, **numbers)


# Updates: optimizer and schedule


@dataclass
class Log:
    """What optimizers and schedules did."""

    optimizers: dict[int, Optimizer] = field(default_factory=dict)
    rates: list[list[float]] = field(default_factory=list)  # each step's, of its groups
    fed: set[int] = field(default_factory=set)  # tensors that had a gradient
    schedules: Counter[int] = field(default_factory=Counter)  # steps of each
    last: list[Tensor] = field(default_factory=list)  # gradients at the last step

    def step(self, optimizer: Optimizer, *_: Any) -> None:
        """Note an optimizer's step, before it is made."""
        self.optimizers[id(optimizer)] = optimizer
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        fed = [p for p in held(optimizer) if p.grad is not None and p.grad.any()]
        self.fed.update(map(id, fed))
        self.last = [p.grad.clone() for p in fed if p.grad is not None]


def held(optimizer: Optimizer) -> list[Tensor]:
    """The tensors that an optimizer was given."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextmanager
def logged() -> Iterator[Log]:
    """Note steps of all optimizers and schedules, whoever holds them."""
    log, inside = Log(), set()
    own = [
        kind for kind in dict.fromkeys(families(LRScheduler)) if "step" in vars(kind)
    ]
    steps = {kind: vars(kind)["step"] for kind in own}

    def noting(step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def noted(schedule: LRScheduler, *args: Any, **options: Any) -> Any:
            outermost = id(schedule) not in inside  # not by way of super().step()
            inside.add(id(schedule))
            log.schedules[id(schedule)] += outermost
            try:
                return step(schedule, *args, **options)
            finally:
                if outermost:
                    inside.discard(id(schedule))

        return noted

    hook = register_optimizer_step_pre_hook(log.step)
    try:
        for kind, step in steps.items():
            kind.step = noting(step)
        yield log
    finally:
        hook.remove()
        for kind, step in steps.items():
            kind.step = step


@dataclass
class Course:
    """Some updates: how many, what was logged, and which parameters changed."""

    updates: int
    log: Log
    changed: set[int]


def course(visit: Visit, batches: Batches) -> Course:
    """Make a few updates with the reader's training step, and take them back.

    Two are enough to see a rate and a schedule, unless the first rates are 0.
    """
    train_step = visit.patient.train_step or (lambda batches: None)
    module = visit.module
    parameters = list(module.parameters()) if module is not None else []
    with unchanged(visit.patient), logged() as log:
        before = [p.detach().clone() for p in parameters]
        for made in range(1, UPDATES + 1):
            train_step([tuple(ids.clone() for ids in piece) for piece in batches])
            if made > 1 and any(map(any, log.rates)):
                break
        pairs = zip(parameters, before, strict=True)
        changed = {id(p) for p, old in pairs if not torch.equal(p, old)}
    return Course(made, log, changed)


def updates(visit: Visit) -> Iterator[Result]:
    """Optimizer and schedule over some updates, from one batch and from 3 pieces."""
    if visit.patient.train_step is None:
        if visit.patient.optimizer is not None:
            yield from holding(visit, Course(0, Log(), set()))
        return
    whole = visit.sentences(EQUAL)
    pieces = list(zip(*(ids.chunk(PIECES) for ids in whole), strict=True))
    one = course(visit, [whole])
    found = [*stepping(one), *holding(visit, one)]
    if not found:
        found = [*scheduling(one, course(visit, pieces)), *clearing(visit, [whole])]
    yield from found
    if not found:
        says = f"{one.updates} updates change parameters, at a rate that is not zero"
        yield healthy("updates", says)
    yield from decay(one)


def stepping(one: Course) -> Iterator[Result]:
    """Whether there are steps, with gradients, and a rate."""
    log, name = one.log, "updates"
    if not log.rates and not one.changed:
        says = f"after {one.updates} training steps, no optimizer has made a step"
        numbers = {"measured": "0 steps", "expected": f"{one.updates} steps"}
        yield finding(name, says, "no_update", weight=TRAINING, **numbers)
    elif log.rates and not any(map(any, log.rates)):
        says = f"the learning rate is 0 in each of the first {len(log.rates)} updates"
        numbers = {"measured": "0", "expected": "more than 0"}
        yield finding(name, says, "rate_zero", weight=TRAINING, **numbers)
    elif (fastest := largest_rate(log)) > LARGE_RATE:
        says = f"the learning rate is {fastest:.2g} in the first updates: that is how "
        says += "far an Adam moves each weight"
        numbers = {"measured": f"{fastest:.2g}", "expected": f"below {LARGE_RATE}"}
        yield finding(name, says, "rate_large", weight=TRAINING, **numbers)
    elif log.rates and not log.fed:
        says = "when the optimizer makes its step, all gradients are none or zero"
        yield finding(name, says, "no_update", measured="no gradients", weight=TRAINING)


def largest_rate(log: Log) -> float:
    """The largest rate of the first updates, if all optimizers are Adam's kin."""
    scaled = all("betas" in it.defaults for it in log.optimizers.values())
    return max(map(max, log.rates), default=0.0) if scaled else 0.0


def settings(optimizer: Optimizer) -> Iterator[Result]:
    """Whether an Adam divides by more than its gradients."""
    eps = max((float(g.get("eps", 0.0)) for g in optimizer.param_groups), default=0.0)
    if eps > LARGE_EPS:
        says = f"the optimizer's eps is {eps:g}: updates are a gradient over that"
        numbers = {"measured": f"{eps:g}", "expected": f"below {LARGE_EPS}"}
        yield finding(
            "optimizer", says, "optimizer_settings", weight=TRAINING, **numbers
        )


def holding(visit: Visit, one: Course) -> Iterator[Result]:
    """Whether the optimizer holds the parameters that the model has, all of them."""
    name = "optimizer"
    given = [visit.patient.optimizer] if visit.patient.optimizer else []
    optimizers = list(one.log.optimizers.values()) or given
    if visit.module is None or not optimizers:
        return
    unfit = [result for each in optimizers for result in settings(each)]
    yield from unfit
    named = {n: p for n, p in visit.module.named_parameters() if p.requires_grad}
    all_held = [p for optimizer in optimizers for p in held(optimizer)]
    ids = {id(p) for p in all_held}
    missing = [n for n, p in named.items() if id(p) not in ids]
    known = {id(p) for p in visit.module.parameters()}
    stale = [p for p in all_held if id(p) not in known | one.log.fed]
    numbers = {
        "measured": f"{len(named) - len(missing)} of {len(named)} parameters",
        "expected": f"{len(named)} of {len(named)}",
    }
    if missing:
        says = f"the optimizer lacks {len(missing)} of {len(named)} parameters: "
        says += some(missing)
        causes = ["optimizer_incomplete"]
        if stale:
            says += f"; it holds {len(stale)} that the model no longer has"
            causes.insert(0, "optimizer_stale")
        yield finding(name, says, *causes, weight=TRAINING, **numbers)
        return
    if stale:
        says = f"the optimizer holds {len(stale)} tensors that the model does not have"
        yield note(name, says)
    fast = max((max(rates) for rates in one.log.rates), default=0.0) > 1e-6
    still = [n for n, p in named.items() if id(p) in one.log.fed - one.changed]
    if still and fast and not unfit:
        says = f"parameters with gradients do not change: {some(still)}"
        numbers = {"measured": f"{len(still)}"}
        yield finding(name, says, "optimizer_incomplete", weight=TRAINING, **numbers)


def scheduling(one: Course, three: Course) -> Iterator[Result]:
    """Whether the schedule advances once an update, also with three pieces."""
    name = "schedule"
    counts = [max(c.log.schedules.values(), default=0) for c in (one, three)]
    if len(three.log.rates) > len(one.log.rates):
        says = f"with {PIECES} pieces, the optimizer makes {PIECES} times as many steps"
        yield note(name, says)
    elif counts[1] > counts[0] > 0 or three.log.rates != one.log.rates:
        says = f"the schedule advances with each piece: {PIECES} times in an update"
        if counts[0]:
            each = counts[1] / three.updates
            numbers = {"measured": f"{each:g} steps an update", "expected": "1"}
        else:
            rates = [course.log.rates[1][0] for course in (three, one)]
            numbers = {
                "measured": f"rate {rates[0]:.3g} at the second update",
                "expected": f"{rates[1]:.3g}, as with one piece",
            }
        yield finding(name, says, "schedule_per_microbatch", weight=TRAINING, **numbers)


def clearing(visit: Visit, batches: Batches) -> Iterator[Result]:
    """Whether an update begins without the last one's gradients.

    The second update is made with the doctor's logits, which give none of their own.
    """
    train_step = visit.patient.train_step or (lambda batches: None)
    for module in places(visit):
        with unchanged(visit.patient):
            with logged() as first:
                train_step(batches)
            with exchanged(visit, module) as calls, logged() as second:
                train_step(batches)
        if not any(call.gradient.any() for call in calls):
            continue
        if second.last and alike(first.last, second.last):
            says = "each update still has the gradients of the one before"
            yield finding(
                "updates", says, "gradients_kept", expected="none", weight=TRAINING
            )
        return


def alike(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether these are the same gradients; clipping may have touched them again."""
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3)
        for a, b in zip(first, second, strict=True)
    )


def decay(one: Course) -> Iterator[Result]:
    """Whether norms and biases are pulled to zero."""
    vectors = [
        p
        for optimizer in one.log.optimizers.values()
        for group in optimizer.param_groups
        if group.get("weight_decay")
        for p in group["params"]
        if p.dim() < 2
    ]
    if vectors:
        says = f"weight decay also pulls at {len(vectors)} norms and biases"
        yield note("optimizer", says)


# One batch by heart


SENTENCES = [(5, 6), (7, 6), (4, 6), (6, 6)]
LARGE_RATE, LARGE_EPS = 0.03, 1e-3
RATED_STEPS = (1, 2, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
STEPS, SECONDS = 600, 20.0


def schedule_alone(visit: Visit) -> Iterator[Result]:
    """Whether the reader's schedule gives rates at which an Adam learns."""
    schedule, name = visit.patient.schedule, "your schedule"
    if schedule is None:
        return
    rates = [float(schedule(step)) for step in RATED_STEPS]
    steps = f"at steps 1 to {RATED_STEPS[-1]:,}"
    low, high = min(rates), max(rates)
    numbers = {"measured": f"{low:.2g} to {high:.2g}", "expected": "1e-5 to 1e-2"}
    if not all(map(math.isfinite, rates)) or low < 0:
        says = f"{steps}, the schedule gives {low:g} to {high:g}"
        yield finding(name, says, "rate_large", weight=TRAINING, **numbers)
    elif not high:
        says = f"{steps}, the schedule gives 0"
        yield finding(name, says, "rate_zero", weight=TRAINING, **numbers)
    elif high > LARGE_RATE:
        says = f"{steps}, the schedule gives up to {high:.2g}: that is how far an Adam "
        says += "moves each weight"
        yield finding(name, says, "rate_large", weight=TRAINING, **numbers)
    else:
        yield healthy(name, f"{steps}, it gives rates for an Adam", **numbers)


def one_batch(visit: Visit) -> Iterator[Result]:
    """Whether the model, by a training of the doctor's, learns four sentences."""
    if visit.module is None or visit.patient.trained:
        return
    if not any(p.requires_grad for p in visit.module.parameters()):
        return  # `gradients_arrive` has said so
    start = math.log(visit.patient.vocab_size)
    with unchanged(visit.patient), torch.enable_grad():
        losses, hurried = by_heart(visit, visit.module, start / 10)
    visit.pictures["one_batch"] = losses
    numbers = {
        "measured": f"{losses[0]:.2f} to {min(losses):.2f} nats in {len(losses)} steps",
        "expected": f"{start:.2f} to under {start / 10:.2f}",
    }
    if min(losses) < start / 10:
        says = f"one batch of four sentences is learned in {len(losses)} steps"
        yield healthy("one batch", says, **numbers)
        return
    says = f"one batch of four sentences is not learned in {len(losses)} steps"
    if hurried:
        says += f", all that fit into {SECONDS:g} seconds"
        yield note("one batch", says, **numbers)
        return
    causes = ("residual_missing", "init_large", "unused_parameters")
    yield finding("one batch", says, *causes, weight=SYMPTOM, **numbers)


def by_heart(
    visit: Visit, module: nn.Module, enough: float
) -> tuple[list[float], bool]:
    """Losses of a training on one batch, and whether time ran out."""
    module.eval()  # so that dropout is off
    ids = visit.sentences(SENTENCES)
    inputs, labels = (*ids[:-1], ids[-1][:, :-1]), ids[-1][:, 1:].flatten()
    parameters = [p for p in module.parameters() if p.requires_grad]
    width = min((p.size(-1) for p in parameters if p.dim() > 1), default=1)
    peak = 1e-3 if width <= 256 else 3e-4
    optimizer = torch.optim.Adam(parameters, betas=(0.9, 0.98), fused=True)
    losses: list[float] = []
    until = time.monotonic() + SECONDS
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = peak * min(1, step / 10)
        output = visit.output(*inputs)
        logs = (
            output.clamp(min=1e-9).log() if kind_of(output) == PROBABILITIES else output
        )
        loss = F.cross_entropy(logs.flatten(0, 1), labels)
        losses.append(loss.item())
        if losses[-1] < enough or not math.isfinite(losses[-1]):
            break
        if time.monotonic() > until:
            return losses, True
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return losses, False


EXAMINATIONS: dict[str, Callable[[Visit], Iterator[Result]]] = {
    "the loss in training": training,
    "the loss": loss_alone,
    "accumulation": accumulation,
    "updates": updates,
    "your schedule": schedule_alone,
    "learning one batch": one_batch,
}
