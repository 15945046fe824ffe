"""The model in other runtimes: a folder that needs neither this package nor PyTorch.

`annotated-transformer export` writes it. It holds the model, its tokenizer and a short
script, `translate.py`, which shows how to run it:

    python OUT/translate.py "Ein Hund läuft am Strand."
"""

import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from annotated_transformer.errors import InputError
from annotated_transformer.files import whole_or_nothing, write_json
from annotated_transformer.tokenizers import SubwordTokenizer
from annotated_transformer.translator import Translator

NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "ctranslate2": ("ctranslate2",),
}
KINDS = {  # of numbers in the file
    "onnx": ("float32", "int8"),
    "ctranslate2": ("float32", "float16", "bfloat16", "int16", "int8"),
}
FACTS, SCRIPT = "export.json", "translate.py"


def export(
    translator: Translator, out: Path, *, format: str, quantization: str = "float32"
) -> Path:
    """Write a translator's folder for another runtime, whole or not at all.

    Raises InputError if the runtime is not installed or can't run such a model, if it
    knows no such kind of numbers, and if `out` holds anything but an export.
    """
    need_format(format, quantization)
    need_free(out)
    need_installed(format)
    write = import_module(f"{__name__}.to_{format}").write
    # A copy: a converter may scale the weights where they lie.
    model = deepcopy(translator.model).cpu().float().eval()
    own = Translator(model, translator.tokenizer)
    facts = {
        "format": format,
        "quantization": quantization,
        "max_length": translator.model.config.max_length,
    }
    with whole_or_nothing(out) as temporary:
        temporary.mkdir()
        with quiet():
            write(own, temporary, quantization)
        translator.tokenizer.save(temporary)
        write_json(temporary / FACTS, facts)
        if isinstance(translator.tokenizer, SubwordTokenizer):
            script = Path(__file__).with_name(f"with_{format}.py")
            shutil.copyfile(script, temporary / SCRIPT)
    return out


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def need_format(format: str, quantization: str) -> None:
    """Raise InputError for a format or a kind of numbers that is not there."""
    if format not in KINDS:
        raise InputError(f"there is no format {format!r}: choose {', '.join(KINDS)}")
    if quantization not in KINDS[format]:
        raise InputError(
            f"{format} has no {quantization!r} here: choose {', '.join(KINDS[format])}"
        )


def need_installed(format: str) -> None:
    """Raise InputError if a package is missing that this format needs."""
    missing = [name for name in NEEDED[format] if find_spec(name) is None]
    if missing:
        raise InputError(f'{", ".join(missing)} missing: pip install -e ".[export]"')


def need_free(out: Path) -> None:
    """Raise InputError if a folder holds anything but an export."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / FACTS).is_file():
        raise InputError(
            f"{out} holds something else than an export: name a new folder"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what converters print, log and warn of from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            with redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(before)
