"""What a loss and a training step do is told from outside, right or wrong."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

from annotated_transformer.doctor.learning import (
    EXAMINATIONS,
    accumulation,
    learning,
    logged,
    loss_alone,
    one_batch,
    schedule_alone,
    training,
    updates,
)
from annotated_transformer.doctor.listen import exchanged
from annotated_transformer.doctor.patient import Patient
from annotated_transformer.doctor.report import FINDING, HEALTHY, NOTE, SKIPPED
from annotated_transformer.doctor.visit import Visit

PAD, BOS, EOS, V = 0, 1, 2, 53


class Model(nn.Module):
    """The next word from the last one, its position, and the mean of the source."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, 24)
        self.positions = nn.Embedding(40, 24)
        self.inner = nn.Linear(24, 48)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(48, V)

    def logits(self, src, tgt):
        source = self.embedding(src).mean(1, keepdim=True)
        x = self.embedding(tgt) + self.positions.weight[: tgt.size(1)] + source
        return self.out(self.dropout(self.inner(x).relu()))

    def forward(self, src, tgt):
        return self.logits(src, tgt)


class Training:
    """A right training step; what is wrong, or another right way, overrides a part."""

    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        self.schedule = LambdaLR(self.optimizer, lambda step: 1 / (step + 1))

    def parameters(self):
        return self.model.parameters()

    def pair(self, tgt):
        return tgt[:, :-1], tgt[:, 1:]

    def loss(self, logits, labels):
        return F.cross_entropy(logits.mT, labels, ignore_index=PAD, reduction="sum")

    def count(self, batches):
        return sum((self.pair(tgt)[1] != PAD).sum() for _, tgt in batches)

    def backward(self, batches):
        for src, tgt in batches:
            tgt_in, labels = self.pair(tgt)
            logits = self.model(src, tgt_in)
            (self.loss(logits, labels) / self.count(batches)).backward()

    def step(self):
        self.optimizer.step()
        self.schedule.step()

    def __call__(self, batches):
        self.optimizer.zero_grad()
        self.backward(batches)
        self.step()


def visit(way=Training, model=Model, **parts):
    torch.manual_seed(0)
    module = model()
    if way is not None:
        parts["train_step"] = way(module)
    return Visit(Patient(model=module, vocab_size=V, **parts))


def results(visited, *examinations):
    """What these examinations give, or all but the learning of one batch."""
    chosen = examinations or (training, loss_alone, accumulation, updates)
    return [result for examine in chosen for result in examine(visited)]


def findings(found):
    return [result for result in found if result.kind == FINDING]


# Right ways


class MeanOfOne(Training):
    def backward(self, batches):
        sources, targets = [], []
        for src, tgt in batches:
            sources += src
            targets += tgt
        src, tgt = (
            nn.utils.rnn.pad_sequence(rows, batch_first=True)
            for rows in (sources, targets)
        )
        tgt_in, labels = self.pair(tgt)
        F.cross_entropy(self.model(src, tgt_in).mT, labels, ignore_index=PAD).backward()


class Summed(Training):
    def count(self, batches):
        return 1


class Smoothed(Training):
    def loss(self, logits, labels):
        return F.cross_entropy(
            logits.mT, labels, ignore_index=PAD, reduction="sum", label_smoothing=0.1
        )


class Divergence(Training):
    """Label smoothing as a distribution, in which padding has no part."""

    def loss(self, logits, labels):
        targets = torch.full_like(logits, 0.1 / (V - 2))
        targets.scatter_(-1, labels[..., None], 0.9)
        targets[..., PAD] = 0
        targets[labels == PAD] = 0
        return F.kl_div(logits.log_softmax(-1), targets, reduction="sum")


class PaddingNeverPredicted(Training):
    def loss(self, logits, labels):
        logits = logits.clone()
        logits[..., PAD] = -torch.inf
        return F.cross_entropy(
            logits.mT, labels, ignore_index=PAD, reduction="sum", label_smoothing=0.0
        )


class OwnSchedule(Training):
    """A schedule as tutorials write it, from the number of updates."""

    def step(self):
        self.n = getattr(self, "n", 0) + 1
        self.optimizer.param_groups[0]["lr"] = 0.01 * min(self.n / 100, self.n**-0.5)
        self.optimizer.step()


class TwoSchedules(Training):
    def __init__(self, model):
        super().__init__(model)
        rise = LinearLR(self.optimizer, 0.1, total_iters=3)
        fall = CosineAnnealingLR(self.optimizer, 10)
        self.schedule = SequentialLR(self.optimizer, [rise, fall], [3])


class ZeroedAfter(Training):
    def __call__(self, batches):
        self.backward(batches)
        self.step()
        self.optimizer.zero_grad()


class OwnOptimizer(Training):
    """Gradient descent by hand."""

    def step(self):
        with torch.no_grad():
            for parameter in self.parameters():
                parameter -= 0.1 * parameter.grad


class FromZero(Training):
    """Warmup whose first rate is 0."""

    def __init__(self, model):
        super().__init__(model)
        self.schedule = LambdaLR(self.optimizer, lambda step: step / 100)


class ShuffledRows(Training):
    def backward(self, batches):
        batches = [tuple(ids.flip(0) for ids in piece) for piece in batches[::-1]]
        super().backward(batches)


RIGHT = [Training, *Training.__subclasses__()]


@pytest.mark.parametrize("way", RIGHT, ids=lambda way: way.__name__)
def test_right_ways_to_train_are_healthy(way):
    visited = visit(way)
    found = results(visited)
    assert [r.says for r in found if r.kind != HEALTHY] == []
    assert {"labels", "softmax", "accumulation", "updates"} <= {
        r.examination for r in found
    }
    assert visited.facts["training_start"] == BOS


class Logs(Model):
    def forward(self, src, tgt):
        return self.logits(src, tgt).log_softmax(-1)


class Probabilities(Model):
    def forward(self, src, tgt):
        return self.logits(src, tgt).softmax(-1)


class NegativeLog(Training):
    def loss(self, output, labels):
        return F.nll_loss(output.mT, labels, ignore_index=PAD, reduction="sum")


class LogOfProbabilities(NegativeLog):
    def loss(self, output, labels):
        return super().loss(output.log(), labels)


@pytest.mark.parametrize(
    ("model", "way"),
    [(Logs, NegativeLog), (Logs, Training), (Probabilities, LogOfProbabilities)],
)
def test_other_outputs_with_the_loss_that_fits_are_healthy(model, way):
    found = results(visit(way, model))
    assert [r.says for r in found if r.kind != HEALTHY] == []


Output = namedtuple("Output", "logits loss")


def wrapped(wrap, unwrap):
    """A model and a training whose logits are in a container."""

    class Wrapping(Model):
        def forward(self, src, tgt):
            return wrap(self.logits(src, tgt))

    class Unwrapping(Training):
        def loss(self, output, labels):
            return super().loss(unwrap(output), labels)

    return Unwrapping, Wrapping


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: (x, None), lambda output: output[0]),
        (lambda x: [x], lambda output: output[0]),
        (lambda x: {"logits": x, "loss": None}, lambda output: output["logits"]),
        (lambda x: SimpleNamespace(logits=x), lambda output: output.logits),
        (lambda x: Output(x, None), lambda output: output[0]),
    ],
    ids=["tuple", "list", "dict", "object", "named tuple"],
)
def test_logits_are_heard_in_any_container(wrap, unwrap):
    found = results(visit(*wrapped(wrap, unwrap)), training)
    assert [r.kind for r in found] == [HEALTHY] * 4


class LossWithin(Model):
    """The loss is computed by the model, as in many libraries."""

    def forward(self, src, tgt, labels=None):
        logits = self.logits(src, tgt)
        return logits, labels is not None and F.cross_entropy(
            logits.mT, labels, ignore_index=PAD
        )


class AskedForLoss(Training):
    def backward(self, batches):
        for src, tgt in batches:
            tgt_in, labels = self.pair(tgt)
            part = (labels != PAD).sum() / self.count(batches)
            (self.model(src, tgt_in, labels=labels)[1] * part).backward()


def test_a_loss_within_the_model_is_heard_at_its_output_layer():
    found = results(visit(AskedForLoss, LossWithin))
    assert {r.kind for r in found} == {HEALTHY}


def test_a_decoder_alone_is_heard():
    class Decoder(Model):
        def forward(self, ids):
            return self.logits(ids[:, :1], ids)

    class OfIds(Training):
        def count(self, batches):
            return sum((ids[:, 1:] != PAD).sum() for (ids,) in batches)

        def backward(self, batches):
            for (ids,) in batches:
                logits = self.model(ids)[:, :-1]
                (self.loss(logits, ids[:, 1:]) / self.count(batches)).backward()

    found = results(visit(OfIds, Decoder, decoder_only=True))
    assert {r.kind for r in found} == {HEALTHY}


# Wrong ways


class NotShifted(Training):
    def pair(self, tgt):
        return tgt, tgt


class NotShiftedWithoutEnd(Training):
    def pair(self, tgt):
        return tgt[:, 1:], tgt[:, 1:]


class ShiftedTwice(Training):
    def pair(self, tgt):
        return tgt[:, :-2], tgt[:, 2:]


class WithoutEnd(Training):
    def pair(self, tgt):
        cut = tgt.masked_fill(tgt == EOS, PAD)[:, :-1]
        return cut[:, :-1], cut[:, 1:]


class PaddingCounts(Training):
    def count(self, batches):
        return sum(self.pair(tgt)[1].numel() for _, tgt in batches)

    def loss(self, logits, labels):
        return F.cross_entropy(logits.mT, labels, reduction="sum")


class SmoothedPadding(Training):
    """Padded positions have no label, and still their part of the smoothing."""

    def loss(self, logits, labels):
        logs = logits.log_softmax(-1)
        plain = F.nll_loss(logs.mT, labels, ignore_index=PAD, reduction="sum")
        return 0.9 * plain - 0.1 * logs.mean(-1).sum()


class SoftmaxInLoss(Training):
    def loss(self, logits, labels):
        return super().loss(logits.softmax(-1), labels)


class ForgottenLog(NegativeLog):
    def loss(self, logits, labels):
        return super().loss(logits.softmax(-1), labels)


class MeanOverPadding(Training):
    def count(self, batches):
        return sum(self.pair(tgt)[1].numel() for _, tgt in batches)


class Accumulated(Training):
    def backward(self, batches):
        for piece in batches:
            super().backward([piece])


class MeanOfMeans(Training):
    def backward(self, batches):
        for src, tgt in batches:
            tgt_in, labels = self.pair(tgt)
            loss = self.loss(self.model(src, tgt_in), labels)
            (loss / self.count([(src, tgt)]) / len(batches)).backward()


class ScheduleInLoop(Training):
    def __call__(self, batches):
        super().__call__(batches)
        for _ in batches[1:]:
            self.schedule.step()


class OwnScheduleInLoop(OwnSchedule):
    def backward(self, batches):
        super().backward(batches)
        self.n = getattr(self, "n", 0) + len(batches) - 1


class ZeroRate(Training):
    def __init__(self, model):
        super().__init__(model)
        self.schedule = LambdaLR(self.optimizer, lambda step: step // 4_000)


class Half(Training):
    def parameters(self):
        return self.model.out.parameters()


class Stale(Training):
    def __init__(self, model):
        super().__init__(model)
        model.out = nn.Linear(48, V)


class NoStep(Training):
    def step(self):
        self.schedule.optimizer.zero_grad()


class ZeroedBefore(Training):
    def step(self):
        self.optimizer.zero_grad()
        super().step()


class NeverZeroed(Training):
    def __call__(self, batches):
        self.backward(batches)
        self.step()


class InEval(Training):
    def __init__(self, model):
        super().__init__(model.eval())


WRONG = {
    NotShifted: "labels_not_shifted",
    NotShiftedWithoutEnd: "labels_not_shifted",
    ShiftedTwice: "labels_shifted_twice",
    WithoutEnd: "end_token_untrained",
    PaddingCounts: "padding_in_loss",
    SmoothedPadding: "padding_in_loss",
    SoftmaxInLoss: "softmax_twice",
    ForgottenLog: "softmax_twice",
    NegativeLog: "softmax_twice",
    MeanOverPadding: "mean_over_padding",
    Accumulated: "accumulation_not_divided",
    ScheduleInLoop: "schedule_per_microbatch",
    OwnScheduleInLoop: "schedule_per_microbatch",
    ZeroRate: "rate_zero",
    Half: "optimizer_incomplete",
    Stale: "optimizer_stale",
    NoStep: "no_update",
    ZeroedBefore: "no_update",
    NeverZeroed: "gradients_kept",
    InEval: "dropout_never",
}


@pytest.mark.parametrize("way", WRONG, ids=lambda way: way.__name__)
def test_each_fault_of_training_is_found_and_no_other(way):
    found = findings(results(visit(way)))
    assert [result.causes[0] for result in found] == [WRONG[way]]
    assert found[0].says and found[0].weight == (10 if way is InEval else 60)


# More than one fault, and notes


def test_means_of_unequal_pieces_are_noted():
    all_results = results(visit(MeanOfMeans))
    assert not findings(all_results)
    assert [r.causes for r in all_results if r.kind == NOTE] == [("mean_of_means",)]


def test_a_loss_that_is_no_cross_entropy_is_noted():
    class Squared(Training):
        def loss(self, logits, labels):
            one = F.one_hot(labels, V) * (labels != PAD)[..., None]
            return ((logits - one) ** 2 * (labels != PAD)[..., None]).sum()

    found = results(visit(Squared), training)
    assert [r.says for r in found if r.kind == NOTE] == [
        "the loss is not cross entropy, or not alone: its parts were not examined"
    ]


def test_means_of_sentences_are_noted():
    class BySentence(Training):
        def loss(self, logits, labels):
            each = F.cross_entropy(
                logits.mT, labels, ignore_index=PAD, reduction="none"
            )
            return (each.sum(1) / (labels != PAD).sum(1)).sum()

        def count(self, batches):
            return sum(len(tgt) for _, tgt in batches)

    found = results(visit(BySentence), training)
    assert not findings(found)
    (noted,) = [result for result in found if result.kind == NOTE]
    assert noted.says.startswith("labels do not count alike")


def test_a_fixed_number_of_pieces_is_noted():
    class ByFour(Accumulated):
        def count(self, batches):
            return 4 * super().count(batches)

    (result,) = results(visit(ByFour), accumulation)
    assert result.kind == NOTE
    assert result.says == (
        "3 pieces give 3.0 times the gradient of one batch, and one alone counts 1/4: "
        "the number is fixed"
    )


def test_weight_decay_of_norms_and_biases_is_noted():
    class Decay(Training):
        def __init__(self, model):
            super().__init__(model)
            self.optimizer = torch.optim.AdamW(model.parameters(), 0.01)

        def step(self):
            self.optimizer.step()

    found = results(visit(Decay), updates)
    assert [r.kind for r in found] == [HEALTHY, NOTE]
    assert "2 norms and biases" in found[1].says


def test_both_numbers_are_said():
    (result,) = results(visit(Accumulated), accumulation)
    assert result.says == "3 pieces give 3.0 times the gradient of one batch"
    assert (result.measured, result.expected) == ("3.00", "1")
    result = findings(results(visit(NotShifted), training))[0]
    assert result.measured.startswith("+0 tokens") and result.expected == "+1"


@pytest.mark.parametrize("seed", range(5))
def test_other_sentences_give_the_same_findings(seed):
    for way in (Training, Smoothed, SoftmaxInLoss, ForgottenLog, MeanOverPadding):
        visited = visit(way)
        visited.generator.manual_seed(seed)
        causes = [result.causes[0] for result in findings(results(visited, training))]
        assert causes == ([WRONG[way]] if way in WRONG else [])


# A loss alone


def mean(logits, labels, **options):
    return F.cross_entropy(logits, labels, ignore_index=PAD, **options)


@pytest.mark.parametrize(
    ("loss", "cause"),
    [
        (mean, None),  # takes (rows, vocab)
        (lambda logits, labels: mean(logits.mT, labels), None),
        (lambda x, labels: mean(x, labels.view(len(labels), labels.size(1))), None),
        (lambda logits, labels: mean(logits.mT, labels, label_smoothing=0.1), None),
        (lambda x, labels: mean(x, labels, reduction="none"), None),  # not yet summed
        (lambda x, labels: F.cross_entropy(x, labels), "padding_in_loss"),
        (lambda x, labels: mean(x.softmax(-1), labels), "softmax_twice"),
        (
            lambda x, labels: mean(x, labels, reduction="sum") / labels.numel(),
            "mean_over_padding",
        ),
    ],
)
def test_a_loss_alone_is_read(loss, cause):
    found = results(visit(None, loss=loss))
    assert [result.causes[0] for result in findings(found)] == (
        [cause] if cause else []
    )
    if not cause:
        assert [result.kind for result in found] == [HEALTHY] * 3


def test_a_model_of_probabilities_needs_another_loss():
    (result,) = findings(results(visit(None, Probabilities, loss=mean)))
    assert result.causes == ("softmax_twice",)


def test_a_loss_that_fits_no_layout_is_told():
    def loss(logits, labels):
        raise ValueError("never")

    found = list(learning(visit(None, loss=loss)))
    assert found[0].kind == SKIPPED and "ValueError: never" in found[0].says


# What cannot be heard, and what is left behind


def test_without_training_and_loss_one_line_says_how_to_give_them():
    found = list(learning(visit(None)))
    assert [r.kind for r in found] == [SKIPPED, HEALTHY]  # one batch is learned
    assert "give train_step(batches)" in found[0].says


def test_a_training_that_goes_around_forward_is_skipped():
    class Around(Training):
        def backward(self, batches):
            for _, tgt in batches:
                tgt_in, labels = self.pair(tgt)
                logits = self.model.embedding(tgt_in) @ self.model.out.weight[:, :24].T
                (self.loss(logits, labels) / self.count(batches)).backward()

        def parameters(self):
            return [self.model.embedding.weight, self.model.out.weight]

    found = results(visit(Around), training, accumulation)
    assert [r.kind for r in found] == [SKIPPED]
    assert "train_step did not call the model's forward" in found[0].says


def test_a_function_without_a_module_is_skipped():
    model = Model()
    patient = Patient(model=model.logits, vocab_size=V, train_step=Training(model))
    assert results(Visit(patient), training)[0].kind == SKIPPED
    assert results(Visit(patient), one_batch) == []


def test_an_error_in_one_examination_leaves_the_others():
    def train_step(batches):
        if len(batches) > 1:
            raise RuntimeError("one at a time")
        Training.__call__(step, batches)

    visited = visit(None, train_step=train_step)
    step = Training(visited.module)
    found = list(learning(visited))
    skipped = [r.says for r in found if r.kind == SKIPPED]
    assert skipped == [
        "accumulation could not be examined: RuntimeError: one at a time",
        "updates could not be examined: RuntimeError: one at a time",
    ]
    assert found[-1].examination == "one batch"


def test_nothing_is_left_behind():
    visited = visit()
    step = visited.patient.train_step
    before = {k: v.clone() for k, v in visited.module.state_dict().items()}
    methods = {kind: kind.step for kind in (LambdaLR, SequentialLR)}
    list(learning(visited))
    after = visited.module.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert visited.module.training and step.schedule.last_epoch == 0
    assert not step.optimizer.state
    for module in visited.module.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert {kind: kind.step for kind in methods} == methods


def test_listening_itself_leaves_no_hooks():
    visited = visit()
    with exchanged(visited, visited.module) as calls:
        visited.patient.train_step([visited.sentences([(3, 4)])])
    visited.patient.train_step([visited.sentences([(3, 4)])])
    assert len(calls) == 1


class Louder(LambdaLR):
    def step(self, *epoch):
        super().step(*epoch)


def test_schedules_are_counted_once_however_they_call_each_other():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    whole = SequentialLR(
        optimizer, [LinearLR(optimizer), CosineAnnealingLR(optimizer, 9)], [3]
    )
    louder = Louder(optimizer, lambda step: 1)
    with logged() as log:
        for _ in range(4):
            optimizer.step()
            whole.step()
            louder.step()
    assert log.schedules[id(whole)] == log.schedules[id(louder)] == 4
    assert len(log.rates) == 4


# One batch


def test_one_batch_is_learned_and_drawn():
    visited = visit(None)
    (result,) = results(visited, one_batch)
    assert result.kind == HEALTHY
    losses = visited.pictures["one_batch"]
    assert losses[-1] < 0.1 * losses[0] and len(losses) < 200


@pytest.mark.parametrize("model", [Logs, Probabilities])
def test_other_outputs_learn_one_batch_too(model):
    (result,) = results(visit(None, model), one_batch)
    assert result.kind == HEALTHY


class Faint(Model):
    """Hardly any gradient comes back."""

    def forward(self, src, tgt):
        return 1e-4 * self.logits(src, tgt)


def test_a_model_that_cannot_learn_one_batch_is_found():
    (result,) = results(visit(None, Faint), one_batch)
    assert result.kind == FINDING and result.weight == 10
    assert "residual_missing" in result.causes


def test_a_model_too_slow_for_the_clock_is_a_note(monkeypatch):
    monkeypatch.setattr("annotated_transformer.doctor.learning.SECONDS", 0.01)
    (result,) = results(visit(None), one_batch)
    assert result.kind == NOTE and "fit into 0.01 seconds" in result.says


def test_trained_models_are_not_trained_on_one_batch():
    assert results(visit(None, trained=True), one_batch) == []


def test_all_examinations_are_run():
    assert list(EXAMINATIONS.values()) == [
        training,
        loss_alone,
        accumulation,
        updates,
        schedule_alone,
        one_batch,
    ]


# A schedule alone


@pytest.mark.parametrize(
    ("schedule", "cause"),
    [
        (lambda step: 64**-0.5 * min(step**-0.5, step * 4_000**-1.5), None),  # Eq. 3
        (lambda step: 1e-3, None),
        (lambda step: 64**-0.5 * max(step**-0.5, step * 4_000**-1.5), "rate_large"),
        (lambda step: 1e-3 * (step // 200_000), "rate_zero"),
        (lambda step: 1e-3 - 1e-6 * step, "rate_large"),
        (lambda step: float("nan"), "rate_large"),
    ],
)
def test_a_schedule_is_examined_by_its_rates(schedule, cause):
    (result,) = schedule_alone(visit(schedule=schedule))
    assert result.causes == ((cause,) if cause else ())
