"""Export: other runtimes give the package's own outputs, from files that are whole."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from annotated_transformer import decoding
from annotated_transformer import export as exports
from annotated_transformer.cli import app
from annotated_transformer.config import TransformerConfig
from annotated_transformer.corpora import sample_captions
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.text import normalize
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator
from annotated_transformer.variations import rms_norms

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
pytest.importorskip("ctranslate2", reason="the extra `export` is not installed")

from annotated_transformer.export.to_ctranslate2 import (
    copy_layer,
    search_with,
    specification,
)

GERMAN = [german for german, _ in sample_captions()["captions"]][:40]


@pytest.fixture(scope="module")
def shipped():
    return Translator.pretrained()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("exports")
    for format in ("onnx", "ctranslate2"):  # by the command, as a user has it
        line = ["-m", "annotated_transformer", "export", str(made / format)]
        command = [sys.executable, *line, "--format", format]
        run = subprocess.run(command, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, ""), run.stderr
    return made


def ids_of(translator, texts):
    width = max(len(translator.encode(text)) for text in texts)
    rows = [translator.encode(text) for text in texts]
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


EQUAL = """
import json, sys, torch
from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.export.to_onnx import OnnxModel
from annotated_transformer.translator import Translator

ours, theirs = Translator.pretrained().model, OnnxModel(sys.argv[1])
src = torch.tensor(json.loads(sys.argv[2]))
ids = torch.full((len(src), 1), 1)
with torch.no_grad():
    caches = ours.start(src, 3), theirs.start(src, 3)
    for _ in range(3):
        one, two = (m.step(ids, c) for m, c in zip((ours, theirs), caches))
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
assert greedy_search(theirs, src) == greedy_search(ours, src)
wide = {"beam_size": 3, "alpha": 1.2}
assert beam_search(theirs, src, **wide) == beam_search(ours, src, **wide)
"""


def test_onnx_gives_the_logits_and_the_outputs_of_the_package(shipped, folders):
    # In a process of its own: here, the searches check that they get a Transformer.
    given = json.dumps(ids_of(shipped, GERMAN).tolist())
    line = [sys.executable, "-c", EQUAL, str(folders / "onnx"), given]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_ctranslate2_writes_what_the_package_writes_but_for_ties(shipped, folders):
    src = ids_of(shipped, GERMAN)
    ours = greedy_search(shipped.model, src)
    theirs = search_with(folders / "ctranslate2", shipped)(None, src)
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 1


def test_ctranslate2s_beam_is_the_packages_with_its_penalty_and_more_patience(
    shipped, folders, monkeypatch
):
    src = ids_of(shipped, GERMAN)
    monkeypatch.setattr(
        decoding, "length_penalty", lambda n, a: torch.as_tensor(n).float() ** a
    )
    ours = decoding.beam_search(shipped.model, src, beam_size=4, alpha=1.2)
    options = {"beam_size": 4, "alpha": 1.2}
    changed = [
        sum(a != b for a, b in zip(ours, search(None, src), strict=True))
        for search in (
            search_with(folders / "ctranslate2", shipped, **options, patience=patience)
            for patience in (1, 2)
        )
    ]
    assert changed[1] <= 1 and changed[0] > changed[1]


@pytest.mark.parametrize("format", ["onnx", "ctranslate2"])
def test_the_folder_translates_without_the_package_and_from_anywhere(
    format, folders, shipped, tmp_path
):
    line = [sys.executable, "-I", str(folders / format / "translate.py"), *GERMAN[:2]]
    run = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    wanted = shipped.translate(GERMAN[:2], search=greedy_search)
    assert run.stdout.splitlines() == wanted, run.stderr


def test_the_command_writes_the_folder_and_says_its_size(tmp_path):
    out = tmp_path / "small"
    line = ["export", str(out), "--format", "ctranslate2", "--quantization", "int8"]
    run = CliRunner().invoke(app, line)
    assert run.exit_code == 0, run.output
    assert len(run.output.splitlines()) == 1 and "ctranslate2, int8" in run.output
    facts = json.loads((out / exports.FACTS).read_text())
    assert facts["quantization"] == "int8"
    assert exports.size(out) < 6e6  # a byte for each weight, and the tokenizer
    assert os.listdir(tmp_path) == ["small"]


def test_a_post_norm_model_of_two_vocabularies_is_exported(tmp_path, shipped):
    # Different sizes everywhere; the tokenizer is not asked.
    config = TransformerConfig(
        vocab_size=4_000, d_model=12, d_ff=20, n_heads=3, n_layers=2, norm="post"
    )
    torch.manual_seed(0)
    own = Translator(Transformer(config).eval(), shipped.tokenizer)
    exports.export(own, tmp_path / "post", format="ctranslate2")
    src = ids_of(own, GERMAN[:4])
    ours = greedy_search(own.model, src)
    theirs = search_with(tmp_path / "post", own)(None, src)
    # It never ends; CTranslate2 has one limit of length for all of a batch.
    assert [ids[:40] for ids in theirs] == [ids[:40] for ids in ours]


def bad(tmp_path, shipped, **changes):
    options = {"out": tmp_path / "out", "format": "onnx"} | changes
    exports.export(shipped, options.pop("out"), **options)


def test_bad_input_is_one_line_that_says_what_to_do(tmp_path, shipped, monkeypatch):
    with pytest.raises(InputError, match="no format 'tflite': choose onnx, ctrans"):
        bad(tmp_path, shipped, format="tflite")
    with pytest.raises(InputError, match="onnx has no 'int4' here: choose float32"):
        bad(tmp_path, shipped, quantization="int4")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="something else than an export"):
        bad(tmp_path, shipped, out=tmp_path / "mine")
    with pytest.raises(InputError, match="is a file: name a folder"):
        bad(tmp_path, shipped, out=tmp_path / "mine" / "thesis.txt")
    monkeypatch.setitem(exports.NEEDED, "onnx", ("onnx", "no_such_package"))
    with pytest.raises(InputError, match=r"no_such_package missing: pip install"):
        bad(tmp_path, shipped)
    assert sorted(os.listdir(tmp_path)) == ["mine"]


def test_norms_that_a_runtime_lacks_are_refused(tmp_path):
    config = TransformerConfig(vocab_size=20, d_model=8, d_ff=16, n_heads=2, n_layers=1)
    model = Transformer(config)
    rms_norms(model)
    spec = specification(config)
    with pytest.raises(InputError, match="LayerNorm, not RMSNorm: use onnx"):
        copy_layer(spec.encoder.layer[0], model.encoder.layers[0])


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, shipped, monkeypatch):
    def broken(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr("annotated_transformer.export.to_ctranslate2.write", broken)
    with pytest.raises(InputError, match="the disk is full"):
        exports.export(shipped, tmp_path / "out", format="ctranslate2")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["onnx", "ctranslate2"])
def test_the_scripts_read_text_as_the_package_does(format):
    path = Path(exports.__file__).with_name(f"with_{format}.py")
    script = runpy.run_path(str(path), run_name="a script")
    texts = ["Ein\u00adHund", " zwei\t\n ", "a\u2581b", "u\u0308ber", "\ufeffx\u200b"]
    assert list(map(script["normalize"], texts)) == list(map(normalize, texts))


def test_export_leaves_the_model_as_it_was(tmp_path, shipped):
    before = {n: w.clone() for n, w in shipped.model.state_dict().items()}
    exports.export(shipped, tmp_path / "out", format="ctranslate2", quantization="int8")
    after = shipped.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
