"""What a reader hands over becomes a patient, or an error that says what to give."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from annotated_transformer.config import TransformerConfig
from annotated_transformer.doctor.adapters import as_patient
from annotated_transformer.doctor.patient import Patient
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.transformer import Transformer

SIZES = {"d_model": 16, "d_ff": 32, "n_heads": 2, "n_layers": 3, "dropout": 0.0}
LENGTHS = [(5, 3), (2, 7)]
hugging = pytest.mark.skipif(
    not find_spec("transformers"),
    reason='needs transformers: pip install -e ".[bench]"',
)


class Pair(nn.Module):
    """Of two sentences, with positions, tied: its last linear layer is an inner one."""

    def __init__(self, src=43, tgt=31, outputs=31):
        super().__init__()
        self.src_embed = nn.Embedding(src, 8)
        self.tgt_embed = nn.Embedding(tgt, 8)
        self.position = nn.Embedding(99, 8)
        self.inner = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
        self.output = nn.Linear(8, outputs)

    def forward(self, src, tgt, src_mask=None):
        x = self.tgt_embed(tgt) + self.position.weight[: tgt.size(1)]
        return self.output(self.inner(x))


class Alone(Pair):
    """Of one sentence, as minGPT's: targets may be given."""

    def forward(self, ids, targets=None):
        return super().forward(None, ids)


class Masked(Pair):
    """Of ids and masks."""

    def forward(self, src, tgt, src_mask, tgt_mask):
        return super().forward(src, tgt)


class OwnEmbeddings(nn.Module):
    """No `nn.Embedding`, and the last linear layer is inside."""

    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Linear(8, 12), nn.Linear(12, last)

    def forward(self, src, tgt):
        raise NotImplementedError


def test_ours_brings_its_vocabulary_and_the_package_decodes():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(vocab_size=29, tgt_vocab_size=23, **SIZES))
    patient = as_patient(model)
    assert (patient.vocab_size, patient.src_vocab_size) == (23, 29)
    assert (patient.pad, patient.bos, patient.eos, patient.unk) == (PAD, BOS, EOS, UNK)
    src, tgt = Visit(patient).sentences(LENGTHS)
    expected = model.eval()(src, tgt)
    assert_close(patient(src, tgt), expected)
    assert patient.greedy(src) == patient.beam(src, 1)
    with torch.inference_mode():
        state = patient.cache.start(src)
        for i, ids in enumerate(tgt.T):
            logits, state = patient.cache.step(ids, state)
            assert_close(logits, expected[:, i])
        swapped = torch.tensor([1, 1])
        state = patient.cache.reorder(state, swapped)
        logits, _ = patient.cache.step(torch.tensor([5, 6]), state)
        longer = torch.cat([tgt[swapped], torch.tensor([[5], [6]])], 1)
        assert_close(logits, model(src[swapped], longer)[:, -1])


@pytest.mark.parametrize(
    ("model", "decoder_only"),
    [
        (Pair(), False),
        (Alone(), True),
        (nn.DataParallel(Pair()), False),
        (Pair().forward, False),
        (lambda ids: ids, True),
        (partial(Masked().forward, src_mask=1, tgt_mask=2), False),
    ],
)
def test_the_signature_says_whether_there_is_a_source(model, decoder_only):
    assert as_patient(model, 31).decoder_only is decoder_only
    assert not as_patient(model, 31, decoder_only=False).decoder_only


def test_a_compiled_model_has_the_signature_of_the_model():
    assert not as_patient(torch.compile(Pair(), backend="eager"), 31).decoder_only


@pytest.mark.parametrize(
    ("model", "vocab_size", "src_vocab_size"),
    [
        (Pair(), 31, 43),
        (Pair(outputs=30), 43, None),  # no row fits: a matter for the doctor
        (nn.Sequential(nn.Embedding(31, 8), nn.Linear(8, 12)), 31, None),
        (OwnEmbeddings(last=31), 31, None),
        (Pair().forward, 31, 43),
    ],
)
def test_sizes_are_those_of_embeddings_and_output(model, vocab_size, src_vocab_size):
    patient = as_patient(model)
    assert patient.vocab_size == vocab_size
    assert patient.src_vocab_size == src_vocab_size
    assert isinstance(Visit(patient).module, nn.Module)


def test_what_is_given_comes_before_what_the_model_says():
    model = Transformer(TransformerConfig(vocab_size=29, **SIZES))
    patient = as_patient(model, 30, eos=7, greedy=None)
    assert (patient.vocab_size, patient.eos, patient.greedy) == (30, 7, None)
    assert as_patient(Pair(), 30).src_vocab_size is None


def test_patients_and_dicts_pass_through():
    model = Pair()
    patient = Patient(model=model, vocab_size=31, eos=5)
    assert as_patient(patient) == patient
    changed = as_patient(patient, 32, pad=None)
    assert (changed.vocab_size, changed.pad, changed.eos) == (32, None, 5)
    given = {"model": model, "eos": 5, "vocab_size": None}
    patient = as_patient(given, eos=6)
    assert (patient.model, patient.eos, patient.vocab_size) == (model, 6, 31)
    assert given == {"model": model, "eos": 5, "vocab_size": None}


@hugging
def test_a_seq2seq_model_of_hugging_face_gets_its_own_ids_and_a_mask():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        **{"vocab_size": 41, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2},
        **{"num_layers": 1, "decoder_start_token_id": 3},
    )
    model = T5ForConditionalGeneration(config).eval()
    patient = as_patient(model)
    assert (patient.pad, patient.bos, patient.eos) == (0, 3, 1)
    assert patient.vocab_size == 41 and not patient.decoder_only
    src, tgt = Visit(patient).sentences(LENGTHS)
    alone = model(input_ids=src[1:, :3], decoder_input_ids=tgt[1:]).logits
    assert_close(patient(src, tgt)[1:], alone)


@hugging
def test_a_decoder_of_hugging_face_reads_ids_alone():
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

    config = GPT2Config(
        **{"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2},
        **{"bos_token_id": 3, "eos_token_id": [4, 5]},
    )
    patient = as_patient(GPT2LMHeadModel(config))
    assert (patient.pad, patient.bos, patient.eos) == (None, 3, 4)
    (ids,) = Visit(patient).sentences(LENGTHS)
    assert patient(ids).shape == (*ids.shape, 41)
    with pytest.raises(InputError, match="AutoModelForCausalLM"):
        as_patient(GPT2Model(config))


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("model.pt", {}, "the model is a str: give a module"),
        (None, {}, "the model is a NoneType"),
        (Pair, {}, r"Pair is a class: make a model of it first, Pair\(\.\.\.\)"),
        (
            nn.Transformer(8, 2, batch_first=True),
            {},
            "nn.Transformer takes vectors, not ids",
        ),
        (Pair(), {"greedi": print}, "no part called greedi. Did you mean greedy?"),
        (Pair(), {"vocab_size": 0}, r"vocab_size \(0\) must be positive"),
        (Pair(), {"vocab_size": -3}, r"vocab_size \(-3\) must be positive"),
        (Pair(), {"vocab_size": 7}, r"vocab_size \(7\) must be at least 8"),
        (Pair(), {"vocab_size": "many"}, r"vocab_size \('many'\) must be a whole"),
        (Pair(), {"src_vocab_size": 9.5}, r"src_vocab_size \(9.5\) must be a whole"),
        (Masked(), {}, "takes src, tgt, src_mask, tgt_mask, and not"),
        (lambda *ids: ids, {}, "say decoder_only=False for"),
        (lambda src, tgt: tgt, {}, "give vocab_size"),
        (OwnEmbeddings(last=8), {}, "give vocab_size"),
        ({"modle": Pair()}, {}, 'has no "model"'),
        (Pair().state_dict(), {}, "weights: build the model"),
    ],
)
def test_bad_input_is_named_with_the_way_out(model, given, message):
    with pytest.raises(InputError, match=message):
        as_patient(model, **given)
