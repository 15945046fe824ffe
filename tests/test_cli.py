"""The command line as users meet it: results on stdout, one line for bad input."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from annotated_transformer.cli import app
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.translator import Translator

GERMAN = [german for german, _ in grammar_corpus(300)["test"]]


def cli(*arguments, stdin=b"", cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-m", "annotated_transformer", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=300,
        cwd=cwd,
        env=env,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A grammar model of a few steps: fluent in nothing, but whole."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    done = cli(
        *"train --corpus grammar --size 300 --vocab-size 150 --d-model 16".split(),
        *"--d-ff 24 --n-heads 2 --n-layers 1 --batch-tokens 500 --steps 30".split(),
        *"--validate-every 10 --warmup 5 --processes 1 --json --run".split(),
        run,
    )
    assert done.returncode == 0, done.stderr.decode()
    row = json.loads(done.stdout)  # nothing but the object on stdout
    assert row["run"] == str(run) and row["step"] in (10, 20, 30)
    return run


def refused(done, *words):
    """Exit code 2, nothing on stdout, and one line on stderr with these words."""
    line = done.stderr.decode()
    assert done.returncode == 2, (done.returncode, line)
    assert done.stdout == b"" and "Traceback" not in line
    assert len(line.strip().splitlines()) == 1 and line.startswith("Error: ")
    for word in words:
        assert word in line, line


def test_translations_go_to_stdout_line_by_line(model):
    by_argument = cli("translate", *GERMAN[:3], "--model", model)
    assert by_argument.returncode == 0 and by_argument.stderr == b""
    lines = by_argument.stdout.decode().split("\n")
    assert len(lines) == 4 and lines[-1] == ""
    by_stdin = cli("translate", "--model", model, stdin="\n".join(GERMAN[:3]).encode())
    assert by_stdin.stdout == by_argument.stdout
    assert lines[:3] == Translator.load(model).translate(GERMAN[:3])


def test_a_file_keeps_its_lines_blank_ones_too(model, tmp_path):
    path = tmp_path / "german.txt"
    path.write_text(f"{GERMAN[0]}\n\n{GERMAN[1]}\n", "utf-8")
    lines = (
        cli("translate", "--file", path, "--model", model).stdout.decode().split("\n")
    )
    assert len(lines) == 4 and lines[1] == ""


def test_json_is_one_object(model):
    done = cli("translate", GERMAN[0], "--model", model, "--json", "--beam-size", 1)
    (pair,) = json.loads(done.stdout)["translations"]
    assert pair["source"] == GERMAN[0]
    done = cli("evaluate", "--model", model, "--limit", 20, "--json")
    facts = json.loads(done.stdout)
    assert (facts["corpus"], facts["split"], facts["sentences"]) == (
        *("grammar", "test"),  # the corpus that the model was trained on
        20,
    )
    assert facts["scores"].keys() == {"greedy", "beam 5"}
    for scores in facts["scores"].values():
        assert {"bleu", "chrf", "exact_match", "word_bleu"} <= scores.keys()
        assert "tok:13a" in scores["signature"]
    assert json.loads(cli("info", "--model", model, "--json").stdout)["d_ff"] == 24


def test_the_shipped_model_translates_wherever_it_is_called(tmp_path):
    done = cli("translate", "Ein Hund läuft am Strand.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() in (
        "A dog is running on the beach.\n",
        "A dog runs on the beach.\n",
        "A dog is running along the beach.\n",
    )
    assert not list(tmp_path.iterdir())  # and leaves nothing behind


def test_a_model_of_no_known_corpus_asks_for_one(model, tmp_path):
    Translator.load(model).save(tmp_path)
    refused(cli("evaluate", "--model", tmp_path), "names no corpus", "--corpus")


def test_sampling_follows_its_seed(model):
    def draw(seed):
        return cli(
            "translate",
            *GERMAN[:3],
            "--model",
            model,
            "--temperature",
            2,
            "--seed",
            seed,
        )

    assert draw(1).stdout == draw(1).stdout != draw(2).stdout


def test_average_writes_a_model_that_translates(model, tmp_path):
    done = cli("average", model, "--last", 3, "--output", tmp_path / "mean")
    assert done.returncode == 0 and b"step-00000030" in done.stdout
    assert cli("translate", GERMAN[0], "--model", tmp_path / "mean").returncode == 0
    refused(cli("average", model, "--last", 9), "3 checkpoints: their last 9")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Hund",
        "🐕 schläft 🌳",
        "كلب ينام في الحديقة",
        "e\u0301\u200d\u2028x",
        "?" * 300,
    ],
    ids=[
        "empty",
        "space",
        "one token",
        "emoji",
        "right to left",
        "odd unicode",
        "long word",
    ],
)
def test_any_text_is_translated(model, text):
    done = cli("translate", text, "--model", model)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode().count("\n") == 1
    if not text.strip():
        assert done.stdout == b"\n"


def test_nul_and_broken_utf8_are_named_with_their_line(model, tmp_path):
    path = tmp_path / "german.txt"
    path.write_bytes(b"Hund\nK\xfche\n")
    refused(
        cli("translate", "--file", path, "--model", model), "line 2", "0xfc", "UTF-8"
    )
    refused(cli("translate", "--model", model, stdin=b"ok\nno\xff"), "line 2", "0xff")
    refused(
        cli(
            "translate", b"K\xfche".decode("utf-8", "surrogateescape"), "--model", model
        )
    )
    refused(cli("translate", "--model", model, stdin=b"a\0b"), "line 1", "NUL")


def test_ten_thousand_tokens_are_refused_before_anything_is_translated(model):
    long = "Hund " * 10_000
    refused(cli("translate", "Hund", long, "--model", model), "1,024", "split it")


def test_a_line_too_long_is_named_and_the_others_are_translated(model, tmp_path):
    path = tmp_path / "german.txt"
    path.write_text(f"{GERMAN[0]}\n{'Hund ' * 2_000}\n{GERMAN[1]}\n", "utf-8")
    expected = [*Translator.load(model).translate(GERMAN[:2]), ""]
    expected.insert(1, "")
    for source, name in ((["--file", path], path), ([], "standard input")):
        data = path.read_bytes() if not source else b""
        done = cli("translate", *source, "--model", model, stdin=data)
        assert done.stdout.decode().split("\n") == expected
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("Error: ") and f"{name}, line 2 " in line
        assert "1,024" in line and done.returncode == 2
    done = cli("translate", "--file", path, "--model", model, "--json")
    pairs = json.loads(done.stdout)["translations"]
    assert [pair["translation"] for pair in pairs] == expected[:3]


def test_standard_input_is_translated_as_lines_come(model):
    process = subprocess.Popen(
        [sys.executable, "-m", "annotated_transformer", "translate", "--model", model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process as running:
        for german in GERMAN[:2]:
            running.stdin.write(german.encode() + b"\n")
            running.stdin.flush()
            line = running.stdout.readline()  # before the input ends
            assert line.decode() == Translator.load(model).translate([german])[0] + "\n"
        running.stdin.close()
        assert running.stdout.read() == b"" and running.wait() == 0


def test_without_a_standard_input_there_is_a_line_that_says_so(model):
    line = (
        f'"{sys.executable}" -m annotated_transformer translate --model "{model}" <&-'
    )
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=300)
    refused(done, "standard input", "--file")


def test_every_sentence_of_a_line_is_translated_unless_told_otherwise(model):
    translator, text = Translator.load(model), " ".join(GERMAN[:3])
    joined = " ".join(filter(None, translator.translate(GERMAN[:3])))
    done = cli("translate", text, "--model", model)
    assert done.stdout.decode() == joined + "\n" and done.stderr == b""
    done = cli("translate", text, "--model", model, "--no-split")
    assert done.stdout.decode() == translator.translate([text])[0] + "\n"


def test_the_shipped_model_says_once_that_it_knows_captions():
    shouted = cli("translate", "EIN HUND LÄUFT.", "EINE FRAU LIEST.", "Собака бежит")
    assert shouted.returncode == 0 and shouted.stdout.count(b"\n") == 3
    (line,) = shouted.stderr.decode().splitlines()
    assert line.startswith("Warning: ") and "captions" in line
    assert cli("translate", "Ein Hund läuft.", "USA 🐕 im Haus.").stderr == b""


WORDS = "train --vocab-size 0 --d-model 16 --d-ff 24 --n-heads 2 --n-layers 1".split()
BRIEFLY = "--batch-tokens 500 --steps 2 --validate-every 2 --processes 1".split()


def test_whole_words_of_chinese_need_its_name(tmp_path):
    rows = [f"Hund {i} läuft.\t一只狗{i % 7}在跑。" for i in range(2_200)]
    (tmp_path / "zh.tsv").write_text("\n".join(rows), "utf-8")
    command = [
        *WORDS,
        *BRIEFLY,
        "--corpus",
        tmp_path / "zh.tsv",
        "--run",
        tmp_path / "r",
    ]
    refused(cli(*command), "target side", "--target-lang zh")
    assert not (tmp_path / "r").exists()
    refused(cli(*command, "--target-lang", "klingon"), "target_lang", "klingon")
    refused(cli(*command, "--target-lang", "xq"), "'xq'", "--target-lang zh")
    done = cli(*command, "--target-lang", "zh")
    assert done.returncode == 0, done.stderr.decode()
    settings = json.loads((tmp_path / "r" / "settings.json").read_text("utf-8"))
    languages = settings["recipe"]["source_lang"], settings["recipe"]["target_lang"]
    assert languages == ("de", "zh") and settings["model"]["tgt_vocab_size"] > 12
    scored = cli("evaluate", "--model", tmp_path / "r", "--json", "--beam-size", 1)
    assert "|tok:zh|" in json.loads(scored.stdout)["scores"]["greedy"]["signature"]
    refused(cli(*command, "--resume", "--target-lang", "ja"), "target_lang (zh there")


def test_validation_in_other_words_is_warned_of(tmp_path):
    for name, word in (("train", "dog"), ("other", "собака")):
        rows = [f"Hund {i % 9} {i % 7}\t{word} {word}" for i in range(120)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows), "utf-8")
    done = cli(
        *WORDS,
        *BRIEFLY,
        *("--corpus", tmp_path / "train.tsv", "--validation", tmp_path / "other.tsv"),
        *("--run", tmp_path / "run"),
    )
    assert done.returncode == 0
    warnings = [x for x in done.stderr.decode().splitlines() if "unknown" in x]
    assert len(warnings) == 1 and "target tokens of the validation split" in warnings[0]


def test_missing_and_damaged_models_are_named(model, tmp_path):
    refused(cli("translate", "Hund", "--model", tmp_path), "settings.json is missing")
    for name, content in [
        ("model.safetensors", pickle.dumps({"weights": 1})),
        ("model.safetensors", b""),
        ("settings.json", b"{"),
        ("settings.json", b"{}"),
        (
            "settings.json",
            (model / "settings.json").read_bytes().replace(b": 16", b": 32", 1),
        ),
        (
            "settings.json",
            (model / "settings.json").read_bytes().replace(b": 16", b": 15", 1),
        ),
        ("tokenizer.model", b"nonsense"),
    ]:
        folder = tmp_path / "copy"
        folder.mkdir(exist_ok=True)
        for file in ("settings.json", "model.safetensors", "tokenizer.model"):
            (folder / file).write_bytes((model / file).read_bytes())
        (folder / name).write_bytes(content)
        refused(cli("translate", "Hund", "--model", folder), str(folder))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--d-model", "30", "--n-heads", "4"], ["d_model (30)", "n_heads (4)"]),
        (["--n-heads", "0"], ["n_heads"]),
        (["--vocab-size", "1"], ["1"]),
        (["--vocab-size", "-5"], ["-5"]),
        (["--size", "0"], ["size"]),
        (["--dropout", "1.5"], ["dropout", "1.5"]),
        (["--norm", "sideways"], ["post", "pre", "sideways"]),
        (["--steps", "0"], ["steps"]),
        (["--batch-tokens", "3", "--size", "300"], ["budget"]),
        (["--corpus", "klingon"], ["klingon", "multi30k"]),
        (["--corpus", "a.de,b.en"], ["a.de"]),
    ],
)
def test_impossible_training_is_refused_and_leaves_no_model(tmp_path, options, words):
    done = cli("train", *options, "--run", tmp_path / "run", "--processes", 1)
    refused(done, *words)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_process_that_fails_says_so_once(tmp_path):
    done = cli(
        *"train --size 300 --vocab-size 150 --batch-tokens 3".split(),
        *"--processes 2 --run".split(),
        tmp_path / "run",
    )
    assert (
        done.returncode == 2
        and b"budget" in done.stderr
        and b"Traceback" not in done.stderr
    )


def test_own_corpora_of_unequal_length_are_refused(tmp_path):
    (tmp_path / "a.de").write_text("eins\nzwei\ndrei\n", "utf-8")
    (tmp_path / "a.en").write_text("one\ntwo\n", "utf-8")
    both = f"{tmp_path / 'a.de'},{tmp_path / 'a.en'}"
    refused(cli("train", "--corpus", both, "--run", tmp_path / "run"), "3", "2")


def test_multi30k_without_its_files_says_how_to_get_them(tmp_path):
    refused(
        cli("evaluate", "--corpus", "multi30k", "--data-dir", tmp_path),
        "train.de.gz",
        "download",
    )


def test_an_unknown_split_lists_the_known_ones(model):
    refused(
        cli("evaluate", "--split", "exam", "--model", model), "exam", "validation, test"
    )


def test_usage_errors_exit_with_2_and_help_teaches():
    assert cli("translate", "--beam-size", 0).returncode == 2
    assert cli("fly").returncode == 2
    text = cli("--help").stdout.decode()
    for name in (
        *("train", "translate", "evaluate", "average", "download", "info", "doctor"),
    ):
        assert name in text
        assert "Example" in cli(name, "--help").stdout.decode() or name in (
            "average",
            "download",
            "info",
        )


def written(text):
    """A text without what sets it in a box, and without line breaks."""
    return " ".join(re.sub("[^\x20-\x7e§“”…üä]", " ", text).split())


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_word_of_every_option(name, monkeypatch):
    """A bracket in a help text would be taken for a style, and be lost."""
    monkeypatch.setenv("COLUMNS", "400")
    shown = written(CliRunner().invoke(app, [name, "--help"]).stdout)
    for parameter in COMMANDS[name].params:
        assert written(parameter.help or "") in shown
        assert "[" not in (parameter.help or ""), "a default is show_default's"
        if isinstance(parameter.show_default, str):
            assert f"[default: ({parameter.show_default})]" in shown


def test_a_full_disk_is_one_line(model, tmp_path):
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "from annotated_transformer.__main__ import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "average",
            str(model),
            "--last",
            "2",
            "--output",
        ]
        + [str(tmp_path / "mean")],
        capture_output=True,
    )
    refused(done, str(tmp_path / "mean"))
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]


def test_each_command_that_computes_takes_a_device(model, tmp_path):
    for device in ("cpu", "auto"):
        done = cli("translate", GERMAN[0], "--model", model, "--device", device)
        assert done.returncode == 0 and done.stdout.strip()
    missing = "mps" if torch.cuda.is_available() else "cuda"
    for command in (
        ["translate", GERMAN[0], "--model", model],
        ["evaluate", "--model", model, "--limit", 5],
        ["train", "--size", 300, "--run", tmp_path / "run", "--processes", 1],
        ["train", "--size", 300, "--run", tmp_path / "runs"],
    ):
        done = cli(*command, "--device", missing)
        refused(done, f"cannot use the device '{missing}'", "or auto")
    assert not list(tmp_path.iterdir())  # refused before anything is written


# The doctor

OURS = """
import beside
from annotated_transformer.config import TransformerConfig
from annotated_transformer.transformer import Transformer

print("building")

def build():
    config = TransformerConfig(vocab_size=29, d_model=16, d_ff=24, n_heads=2)
    return Transformer(beside.changed(config))

def ahead(scale=1.0):
    model = build()
    model.decode_mask = None
    return lambda src, tgt: scale * model(src, tgt).flip(1)

class Needy(Transformer):
    def __init__(self, config, extra, more=None):
        super().__init__(config)

def stops():
    raise ValueError("red \x1b[31m\\n" "and two lines")

def leaves():
    raise SystemExit("good-bye")

model_of_nothing = "a model"
"""
BESIDE = """
from dataclasses import replace

def changed(config):
    return replace(config, n_layers=1)
"""


@pytest.fixture
def own(tmp_path):
    """A reader's file, its own helper beside it, in a folder that is not this one."""
    (tmp_path / "beside.py").write_text(BESIDE, "utf-8")
    path = tmp_path / "my model.py"
    path.write_text(OURS, "utf-8")
    return path


def test_the_doctor_finds_ours_healthy_and_repeats_itself(own):
    done, again = cli("doctor", own), cli("doctor", f"{own}:build")
    assert done.returncode == 0, done.stderr.decode()
    first, second, *_ = done.stdout.decode().splitlines()
    assert first == "building" and second.startswith("Healthy: ")
    assert done.stdout == again.stdout
    assert done.stderr.decode() == f"running the code of {own}, which can do anything\n"


def test_the_doctor_names_what_is_wrong_and_exits_with_1(own, tmp_path):
    page = tmp_path / "page.html"
    sick = (f"{own}:ahead", "--vocab-size", 29)
    done = cli("doctor", *sick, "--json", "--html", page)
    assert done.returncode == 1, done.stderr.decode()
    value = json.loads(done.stdout)  # nothing but the object on stdout
    assert value["findings"] and value["verdict"].startswith("Not healthy: ")
    assert "building" in done.stderr.decode()
    assert value["verdict"] in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":nothing", ("has no nothing; it has build, ahead, Needy, stops, leaves",)),
        (":", ("has no ;",)),
        (":Needy", ("Needy", "needs config, extra", "def build")),
        (
            ":stops",
            ("stops() stopped with ValueError: red \\x1b[31m and two lines (line 22",),
        ),
        (":leaves", ("leaves() stopped with SystemExit: good-bye (line 25",)),
        (":model_of_nothing", ("str",)),
    ],
)
def test_the_doctor_says_what_it_cannot_examine(own, name, words):
    done = cli("doctor", f"{own}{name}", "--json")
    first, *printed, last = done.stderr.decode().splitlines()
    assert done.returncode == 2 and done.stdout == b""
    assert first.startswith("running the code") and printed == ["building"]
    assert last.startswith("Error: ") and "\x1b" not in last
    for word in words:
        assert word in last, last


def test_the_doctor_names_missing_and_damaged_files(tmp_path):
    refused(cli("doctor", tmp_path / "gone.py:build"), "gone.py is missing")
    refused(cli("doctor", tmp_path), "is a folder", "my_model.py:build")
    text, empty = tmp_path / "notes.txt", tmp_path / "empty.py"
    text.write_text("words")
    refused(cli("doctor", text), "notes.txt is no Python file")
    empty.write_text("")
    done = cli("doctor", empty)
    assert done.returncode == 2
    assert "has none of build, patient, model; it defines nothing" in str(done.stderr)
    for code, words in (
        ("def broken(:", "SyntaxError: invalid syntax (line 1 of torch.py)"),
        ("import nowhere", "No module named 'nowhere' (line 1 of torch.py)"),
        ("\n\nraise SystemExit", "SystemExit: no message (line 3 of torch.py)"),
    ):
        path = tmp_path / "torch.py"  # a name that is taken
        path.write_text(code)
        done = cli("doctor", path)
        line = done.stderr.decode().splitlines()[-1]
        assert done.returncode == 2 and words in line and "Traceback" not in line
