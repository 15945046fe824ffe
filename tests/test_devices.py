"""Any device gives the same numbers; the fast path leaves everything as it was."""

import json
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from annotated_transformer import devices
from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.batches import Batch
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.devices import (
    accelerator,
    attention_by_products,
    choose_device,
    fast_path,
    fast_products,
)
from annotated_transformer.errors import InputError
from annotated_transformer.objectives import Objective
from annotated_transformer.processes import Processes
from annotated_transformer.recording import record_attention
from annotated_transformer.training import adam, train_step
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

ROOT = Path(__file__).parents[1]
VOCAB = 97


def new_model(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "d_model": 32, "d_ff": 48, "n_heads": 4}
    return Transformer(TransformerConfig(**sizes, n_layers=2, dropout=0.0, **changes))


def random_batch(n, src, tgt):
    batch = Batch(*(torch.randint(4, VOCAB, (n, length)) for length in (src, tgt)))
    batch.src[0, 2:] = 0  # padding
    return batch


def test_settings_hold_inside_only_even_after_an_error():
    precision, model = torch.get_float32_matmul_precision(), new_model()
    layer = model.encoder.layers[0].self_attention
    fields = set(vars(layer))
    with pytest.raises(KeyError), fast_path(model):
        assert torch.get_float32_matmul_precision() == "medium"
        assert layer.attend is attention_by_products
        raise KeyError
    assert torch.get_float32_matmul_precision() == precision
    assert layer.attend is fused_attention
    assert set(vars(layer)) == fields
    with fast_products("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == precision


def test_the_warning_of_torch_2_9_about_its_own_switch_is_not_shown(monkeypatch):
    setting, told = torch.set_float32_matmul_precision, []

    def warns(precision):
        if not told:  # once in a process
            warnings.warn("Please use the new API settings to control", stacklevel=2)
        told.append(precision)
        setting(precision)

    monkeypatch.setattr(torch, "set_float32_matmul_precision", warns)
    with fast_products("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_maps_are_recorded_on_the_fast_path_and_it_goes_on_after_them():
    model, batch = new_model().eval(), random_batch(3, 7, 5)
    with fast_path(model):
        with record_attention(model) as maps:
            model(batch.src, batch.tgt)
        assert model.encoder.layers[0].self_attention.attend is attention_by_products
    assert len(maps) == 6


def random_heads(query, key, dtype=torch.float64):
    shapes = [(2, 3, query, 5), (2, 3, key, 5), (2, 3, key, 11)]
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("mask", [None, *((2, 1, 1, 13), (1, 1, 7, 13), (13,))])
@pytest.mark.parametrize("queries", [7, 9])  # few enough for small products, and not
def test_attention_by_products_is_attention(mask, queries):
    if mask is not None:
        shape = tuple(queries if n == 7 else n for n in mask)
        mask = torch.rand(shape) > 0.4
        mask.view(-1, 13)[-1] = False  # somebody may look nowhere
    heads = random_heads(queries, 13)
    right, ours = attention(*heads, mask)[0], attention_by_products(*heads, mask)
    assert_close(ours, right)
    upstream = torch.randn_like(right)
    assert_close(
        torch.autograd.grad(ours, heads, upstream),
        torch.autograd.grad(right, heads, upstream),
    )


def test_attention_by_products_drops_weights_and_scales_up_the_rest():
    query, key = torch.zeros(1_000, 2), torch.zeros(5, 2)  # each weight is 1/5
    shown = attention_by_products(query, key, torch.eye(5), dropout=0.75)
    assert_close(shown.unique(), torch.tensor([0.0, 0.8]))
    assert shown.count_nonzero() / shown.numel() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_small_products_go_where_they_are_faster(monkeypatch, precision):
    monkeypatch.setattr(devices, "small_precision", lambda: precision)
    seen = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(
        torch.Tensor,
        "softmax",
        lambda x, axis: (
            seen.append(torch.get_float32_matmul_precision()) or softmax(x, axis)
        ),
    )
    with fast_products("cpu"):
        for queries in (1, 9):
            attention_by_products(*random_heads(queries, 13, torch.float32))
    attention_by_products(*random_heads(1, 13))
    assert seen == [precision, "medium", "highest"]


def test_the_measurement_names_a_way_and_is_made_once():
    assert devices.small_precision() in ("highest", "medium")
    hits = devices.small_precision.cache_info().hits
    devices.small_precision()
    assert devices.small_precision.cache_info().hits == hits + 1


def test_the_model_says_the_same_on_the_fast_path():
    model, batch = new_model().eval(), random_batch(3, 7, 5)
    plain = model(batch.src, batch.tgt)
    with fast_path(model):
        fast = model(batch.src, batch.tgt)
    # bfloat16 units, where there are any, round to about three digits.
    assert_close(fast, plain, atol=0.05, rtol=0.05)


# Which device


def test_the_device_of_this_machine_is_found():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == (accelerator() or "cpu")
    assert Processes.join("cpu").device == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu", "", "cuda:99"])
def test_a_device_that_is_not_here_is_named_with_one_that_is(name):
    if name in (accelerator(), "cuda:99") and accelerator() == "cuda":
        pytest.skip("it is here")
    with pytest.raises(InputError, match=f"the device '{name}' here .*: choose"):
        choose_device(name)
    with pytest.raises(InputError, match="choose"):
        Translator.pretrained(device=name)


def test_an_old_torch_without_torch_accelerator_finds_its_gpu(monkeypatch):
    monkeypatch.delattr(torch, "accelerator", raising=False)
    for cuda, mps, found in [(1, 0, "cuda"), (0, 1, "mps"), (0, 0, None)]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert accelerator() == found


@pytest.mark.skipif(accelerator() is None, reason="no accelerator on this machine")
def test_the_accelerator_translates_like_the_cpu():
    german = ["Ein Hund läuft am Strand.", "Zwei Kinder spielen im Garten."]
    here, there = (Translator.pretrained(device=d) for d in ("cpu", "auto"))
    assert there.device.type == accelerator()
    assert there.translate(german) == here.translate(german)


def test_every_tensor_of_the_model_moves_with_it():
    moved = new_model().to("meta")  # a device where whatever stayed behind would clash
    src, tgt = (torch.ones(2, n, dtype=torch.long, device="meta") for n in (7, 5))
    assert moved(src, tgt).shape == (2, 5, VOCAB)
    assert moved(src, tgt).device.type == "meta"
    assert moved(src, tgt.repeat(1, 300)).device.type == "meta"  # the table has grown
    cache = moved.start(src, capacity=5)
    assert moved.step(tgt[:, :1], cache).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_model_works_in_other_precisions(dtype):
    model, batch = new_model().eval(), random_batch(3, 7, 5)
    other = deepcopy(model).to(dtype)
    logits = other(batch.src, batch.tgt)
    assert logits.dtype == dtype
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    assert_close(
        logits.float(), model(batch.src, batch.tgt), atol=tolerance, rtol=tolerance
    )
    assert len(greedy_search(other, batch.src)) == 3
    assert len(beam_search(other, batch.src)) == 3


# What a GPU runs, run on this CPU


def test_compiled_stacks_give_the_same_and_are_compiled_once_for_all_lengths():
    command = [sys.executable, "-m", "tests.compiled"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    for counts in json.loads(done.stdout).values():
        assert counts[0] > 0
        assert set(counts[1:]) == {counts[1]}, "compiled again for another length"


def test_a_step_under_autocast_is_the_step_within_bfloat16():
    model, batch = new_model(), random_batch(3, 7, 5)
    rounded = deepcopy(model)
    losses = []
    for copy, enabled in (model, False), (rounded, True):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            losses.append(Objective(copy, 0.1)(batch))
        losses[-1].backward()
        assert all(p.grad.dtype == torch.float32 for p in copy.parameters())
    assert losses[1] != losses[0]  # it does something
    assert_close(losses[1].float(), losses[0], rtol=0.01, atol=0)
    pairs = zip(model.parameters(), rounded.parameters(), strict=True)
    for plain, other in pairs:
        distance = (plain.grad - other.grad).norm() / plain.grad.norm()
        assert distance < 0.05


def test_a_step_moves_its_batch_to_the_model():
    model = new_model().to("meta")
    batch = random_batch(3, 7, 5)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        # The loss of a meta tensor has no number: the step came as far as that.
        train_step(Objective(model, 0.1), adam(model), [batch], n_tokens=batch.n_tokens)


@pytest.mark.parametrize("name", ["meta", "cpu:-1", "hpu", "privateuseone", "", "fpga"])
def test_a_device_that_cannot_compute_is_refused(name):
    with pytest.raises(InputError, match="cannot use the device"):
        choose_device(name)
