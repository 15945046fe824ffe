"""What an examination may change is as it was before, wherever the reader keeps it."""

import random
import warnings
from collections import deque
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau
from torch.optim.optimizer import _global_optimizer_pre_hooks

from annotated_transformer.doctor.keep import unchanged
from annotated_transformer.doctor.patient import Cache, Patient


class Model(nn.Module):
    """Small, with a layer in a list, a weight in a dict, and a list in a list."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)  # its buffers change in training
        self.dropout = nn.Dropout(0.5)
        self.hidden = [nn.Linear(6, 6), [nn.Linear(6, 6)]]
        self.more = {"weight": torch.ones(6, requires_grad=True)}
        self.out = nn.Linear(6, 11)
        self.calls = 0
        self.lengths = deque([3], maxlen=4)

    def forward(self, src, tgt):
        self.calls += 1
        self.lengths.append(len(tgt))
        x = self.embedding(tgt) * self.more["weight"]
        x = self.hidden[1][0](self.hidden[0](x))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.out(self.dropout(x))

    def everything(self):
        weights = [*self.parameters(), *self.hidden[0].parameters()]
        weights += [*self.hidden[1][0].parameters(), self.more["weight"]]
        return [*weights, *self.buffers()]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def patient(model, **parts):
    return Patient(model=model, vocab_size=11, **parts)


def update(model, optimizer):
    """One step of training, on all weights, the hidden ones too."""
    ids = torch.randint(11, (5, 4))
    optimizer.zero_grad(set_to_none=False)
    model(ids, ids).square().mean().backward()
    optimizer.step()


def adam(model):
    return torch.optim.Adam([t for t in model.everything() if t.requires_grad], 0.1)


def test_training_leaves_no_trace(model):
    optimizer = adam(model)
    update(model, optimizer)  # so that there are gradients and moments
    before = [t.detach().clone() for t in model.everything()]
    places = [t.data_ptr() for t in model.everything()]
    grads = [t.grad for t in model.everything()]
    values = [g if g is None else g.clone() for g in grads]
    state = [
        {k: v.clone() for k, v in moments.items()}
        for moments in optimizer.state.values()
    ]
    calls, lengths = model.calls, list(model.lengths)
    with unchanged(patient(model, optimizer=optimizer)):
        for _ in range(3):
            update(model, optimizer)
        optimizer.param_groups[0]["lr"] = 7.0
        model.eval()
    after = model.everything()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert [t.data_ptr() for t in after] == places
    assert all(t.grad is g for t, g in zip(after, grads, strict=True))
    assert all(
        v is None or torch.equal(g, v) for g, v in zip(grads, values, strict=True)
    )
    for moments, old in zip(optimizer.state.values(), state, strict=True):
        assert all(torch.equal(moments[k], old[k]) for k in old)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert model.training and model.dropout.training
    assert (model.calls, list(model.lengths)) == (calls, lengths)


def test_gradients_that_were_none_are_none_again(model):
    optimizer = adam(model)
    with unchanged(patient(model)):
        update(model, optimizer)
    assert all(t.grad is None for t in model.everything())
    assert not optimizer.state


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_also_after_an_error(model, error):
    before = [t.detach().clone() for t in model.everything()]
    with pytest.raises(error), unchanged(patient(model)):
        update(model, adam(model))
        raise error
    after = model.everything()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_an_exchanged_or_converted_weight_comes_back(model):
    weight, place = model.out.weight, model.out.weight.data_ptr()
    before = weight.detach().clone()
    with unchanged(patient(model)):
        model.double()
        model.out.weight = nn.Parameter(torch.zeros(2, 3))
        model.hidden.append(nn.Linear(6, 6))
        del model.calls
        model.new = 5
    assert model.out.weight is weight
    assert weight.data_ptr() == place and torch.equal(weight, before)
    assert weight.dtype == torch.float32
    assert len(model.hidden) == 2 and model.calls == 0 and not hasattr(model, "new")


def test_nan_and_shared_memory_are_kept_bit_for_bit(model):
    model.out.weight.data[0, 0] = torch.nan
    model.embedding.weight.data = model.out.weight.data  # two names, one memory
    model.wide = torch.ones(1, 6).expand(4, 6)  # no row has memory of its own
    bits = model.out.weight.detach().view(torch.int32).clone()
    with unchanged(patient(model)):
        model.out.weight.data.zero_()
        model.wide[0] = 2
    assert torch.equal(model.out.weight.detach().view(torch.int32), bits)
    assert model.embedding.weight.data_ptr() == model.out.weight.data_ptr()
    assert model.wide.sum() == 24


def test_frozen_weights_and_hooks_stay_as_they_were(model):
    model.out.weight.requires_grad_(False)
    seen = []
    model.norm.register_forward_hook(lambda *_: seen.append(1))
    model.embedding.weight.register_hook(lambda grad: seen.append(2))
    with unchanged(patient(model)):
        model.requires_grad_(True)
        model.norm.register_forward_hook(lambda *_: seen.append(3))
        model.embedding.weight.register_hook(lambda grad: seen.append(4))
        model.out.bias.register_hook(lambda grad: seen.append(5))
    assert not model.out.weight.requires_grad
    update(model, adam(model))
    assert set(seen) == {1, 2}


def test_random_states_and_settings_are_kept(model):
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = draw()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    with unchanged(patient(model)):
        draw()
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
    assert draw() == expected
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


# Schedules, and other things that a training step holds


class Noam:
    """A schedule as tutorials write it: around the optimizer."""

    def __init__(self, optimizer, factor):
        self.optimizer, self.factor, self.n = optimizer, factor, 0
        self.rates = []
        self.average = {"loss": np.zeros(3)}

    def step(self):
        self.n += 1
        self.rates.append(self.factor * self.n)
        self.average["loss"] += 1
        self.optimizer.param_groups[0]["lr"] = self.rates[-1]
        self.optimizer.step()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: LambdaLR(o, lambda step: 1 / (step + 1)),
        lambda o: CosineAnnealingLR(o, 10),
        lambda o: ReduceLROnPlateau(o, patience=0),
    ],
)
@pytest.mark.parametrize("given", [True, False], ids=["held", "not held"])
def test_schedules_go_back(model, schedule, given):
    optimizer = adam(model)
    scheduler = schedule(optimizer)
    metric = [1.0] if isinstance(scheduler, ReduceLROnPlateau) else []

    def train_step(batches):
        update(model, optimizer)
        scheduler.step(*metric)

    for _ in range(2):
        train_step(None)
    before = {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"}
    rate = optimizer.param_groups[0]["lr"]
    with unchanged(patient(model, train_step=train_step if given else None)):
        for _ in range(5):
            train_step(None)
        assert scheduler.last_epoch == 7
    after = scheduler.state_dict()
    assert {k: after[k] for k in before} == before
    assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize(
    "hold",
    [
        lambda noam: lambda batches: noam.step(),
        lambda noam: partial(lambda batches, it: it.step(), it=noam),
        lambda noam: SimpleNamespace(it=SimpleNamespace(noam=noam)).it.noam.step,
        lambda noam: lambda batches, it=noam: it.step(),
        lambda noam: lambda batches, *, it={"deep": [noam]}: it["deep"][0].step(),
    ],
    ids=["closure", "partial", "method", "default", "keyword"],
)
def test_a_schedule_of_the_readers_own_goes_back(model, hold):
    noam = Noam(adam(model), 0.1)
    noam.step()
    before = [t.detach().clone() for t in model.everything()]
    with unchanged(patient(model, train_step=hold(noam))):
        update(model, noam.optimizer)
        noam.step()
    assert noam.n == 1 and noam.rates == [0.1]
    assert noam.optimizer.param_groups[0]["lr"] == 0.1
    assert noam.average["loss"].tolist() == [1, 1, 1]
    after = model.everything()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


steps = 4  # a script's own counter


def test_counters_in_closures_globals_and_functions_go_back(model):
    count = 0
    generator = torch.Generator().manual_seed(1)
    numbers, numpy_numbers = random.Random(2), np.random.default_rng(3)
    state = SimpleNamespace(step=1, seen={5})

    def train_step(batches):
        global steps, fresh
        nonlocal count
        count, steps, fresh = count + 1, steps + 1, 1
        train_step.calls += 1
        state.step += 1
        state.seen.add(count)
        drawn = torch.rand(2, generator=generator), numbers.random()
        return [drawn[0].tolist(), drawn[1], numpy_numbers.random()]

    train_step.calls = 0
    with unchanged(patient(model, train_step=train_step)):
        first = train_step(None)
        assert train_step(None) != first
    assert (count, steps, train_step.calls, state.step) == (0, 4, 0, 1)
    assert state.seen == {5} and "fresh" not in globals()
    assert train_step(None) == first
    globals().pop("fresh"), globals().update(steps=4)


class Trainer:
    """An object that is called; a loop within a function counts globally."""

    def __call__(self, batches):
        def count():
            global steps
            steps += 1

        count()


def test_a_counter_behind_a_called_object_goes_back(model):
    with unchanged(patient(model, train_step=Trainer())):
        Trainer()(None)
    assert steps == 4


def test_a_traced_models_weights_go_back(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is going out of use
        traced = torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2))
    before = traced.weight.detach().clone()
    with unchanged(patient(traced)):
        traced.weight.data.zero_()
    assert torch.equal(traced.weight, before)


def test_an_optimizer_that_nothing_names_goes_back(model):
    hidden = {"optimizer": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)}
    update(model, hidden["optimizer"])
    before = hidden["optimizer"].state_dict()["state"][0]["momentum_buffer"].clone()
    with unchanged(patient(model)):
        update(model, hidden["optimizer"])
    after = hidden["optimizer"].state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(after, before)


def test_an_optimizer_of_other_tensors_is_met_at_its_first_step(model):
    stranger = nn.Parameter(torch.ones(3))
    stranger.grad = torch.ones(3)
    optimizer = torch.optim.SGD([stranger], 0.1, momentum=0.9)
    with unchanged(patient(model)):
        optimizer.step()
        assert stranger[0] != 1
    assert torch.equal(stranger, torch.ones(3)) and not optimizer.state
    assert not _global_optimizer_pre_hooks  # nothing of ours is left


def test_a_cache_that_keeps_things_to_itself_goes_back(model):
    kept = []
    cache = Cache(start=lambda src: kept.append(src), step=lambda ids, state: None)
    with unchanged(patient(model, cache=cache)):
        cache.start(torch.ones(1))
    assert kept == []


def test_threads_are_as_many_as_before(model):
    n = torch.get_num_threads()
    with unchanged(patient(model)):
        torch.set_num_threads(n + 1)
    assert torch.get_num_threads() == n
