"""The command line: `annotated-transformer train | translate | evaluate | ...`."""

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from annotated_transformer import corpora, runs
from annotated_transformer.checkpoints import resumable
from annotated_transformer.config import SearchConfig, TrainingConfig
from annotated_transformer.decoding import beam_search, greedy_search, sample
from annotated_transformer.devices import accelerator, choose_device
from annotated_transformer.errors import InputError, warn
from annotated_transformer.files import whole_or_nothing
from annotated_transformer.lines import Line, is_unfamiliar, translate_lines
from annotated_transformer.processes import default_processes, is_main, launch
from annotated_transformer.progress import read_history, standing
from annotated_transformer.recipes import RECIPES
from annotated_transformer.transformer import parameter_count
from annotated_transformer.translator import PRETRAINED, Translator

app = typer.Typer(
    help="Train, use and score the Transformer of “Attention Is All You Need”.\n\n"
    'Begin with [bold]translate "Ein Hund läuft am Strand."[/bold]: a trained model '
    "comes with the package. [bold]train --corpus grammar[/bold] makes your own.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with Multi30k's files, to use instead of a download.",
        envvar=corpora.DATA_VARIABLE,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(help="Folder of a trained model.", show_default="the one that ships"),
]
CORPORA = (
    "grammar (built in), multi30k (real; downloaded once), your own file with a tab "
    "between source and target, or two files as source.txt,target.txt."
)
BeamSize = Annotated[
    int, typer.Option(help="Hypotheses kept at each step; 1 is greedy.")
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="Length penalty of beam search (§6.1).",
        show_default="the model's own, or 0.6",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda or mps; auto uses the machine's accelerator, if it has one."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.")
]
Place = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py[:NAME]",
        help="A Python file, and what in it to examine: a model, or a function or "
        "class that makes one without arguments. NAME may be left out if it is build, "
        "patient or model.",
    ),
]
CAPTIONS_ONLY = (
    "the model that ships knows only captions of photographs, in ordinary capitals and "
    "letters: here is text of another kind, whose translation will be wrong"
)
SHAPE, SCHEDULE, RUN = "Model", "Training", "Run"


def changed(settings: Any, **options: Any) -> Any:
    """The settings, updated with the options that were given."""
    return replace(settings, **{k: v for k, v in options.items() if v is not None})


def paper_rate(config: TrainingConfig) -> TrainingConfig:
    """The same with the learning rate of Eq. 3."""
    return replace(config, learning_rate=None)


@app.command()
def train(
    corpus: Annotated[
        str | None, typer.Option(help=CORPORA, show_default="grammar")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Your own file(s), instead of a part of the corpus."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Your own file(s), instead of a part of the corpus."),
    ] = None,
    more: Annotated[
        str | None,
        typer.Option(help="Your own file(s), whose pairs join the training split."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="runs/CORPUS")
    ] = None,
    data_dir: DataDir = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Continue a run that was stopped, with its own settings. More --steps "
            "make it longer; --keep and --patience can change, too."
        ),
    ] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a model whose weights and tokenizer to start from."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="How many to train with.",
            show_default="one per GPU, or per CPU core up to 4",
        ),
    ] = None,
    device: Device = "auto",
    tensorboard: Annotated[
        bool, typer.Option(help="Also log for TensorBoard.")
    ] = False,
    as_json: AsJson = False,
    size: Annotated[int | None, typer.Option(help="Grammar pairs to train on.")] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Subwords to learn; 0 uses whole words.")
    ] = None,
    source_lang: Annotated[
        str | None,
        typer.Option(
            help="Source language of your own corpus, as spaCy names it, such as fr: "
            "its rules tell words (--vocab-size 0) and sentences apart.",
            show_default="de",
        ),
    ] = None,
    target_lang: Annotated[
        str | None, typer.Option(help="Its target language.", show_default="en")
    ] = None,
    d_model: Annotated[int | None, typer.Option(rich_help_panel=SHAPE)] = None,
    d_ff: Annotated[int | None, typer.Option(rich_help_panel=SHAPE)] = None,
    n_heads: Annotated[int | None, typer.Option(rich_help_panel=SHAPE)] = None,
    n_layers: Annotated[int | None, typer.Option(rich_help_panel=SHAPE)] = None,
    dropout: Annotated[float | None, typer.Option(rich_help_panel=SHAPE)] = None,
    norm: Annotated[
        str | None, typer.Option(rich_help_panel=SHAPE, help="post (§3.1) or pre.")
    ] = None,
    steps: Annotated[int | None, typer.Option(rich_help_panel=SCHEDULE)] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(rich_help_panel=SCHEDULE, help="Tokens per update.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(rich_help_panel=SCHEDULE, help="Pieces per update.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=SCHEDULE,
            help="Peak of a cosine schedule; 0 uses the paper's Eq. 3 instead.",
        ),
    ] = None,
    warmup: Annotated[int | None, typer.Option(rich_help_panel=SCHEDULE)] = None,
    smoothing: Annotated[float | None, typer.Option(rich_help_panel=SCHEDULE)] = None,
    consistency: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=SCHEDULE,
            help="Read each sentence twice, and charge this much for disagreement.",
        ),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=SCHEDULE,
            help="Also train on the BLEU of sampled translations, with this weight.",
        ),
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(rich_help_panel=SCHEDULE)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=SCHEDULE,
            help="Stop after this many validations without improvement.",
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(rich_help_panel=SCHEDULE, help="Checkpoints to keep.")
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=SCHEDULE)] = None,
) -> None:
    """Train a model. Each corpus has a recipe, whose settings the options change.

    The run's folder holds the best weights, the tokenizer, the settings, history.jsonl
    (one line per validation), its plot curve.png, and the last checkpoints. If it is
    stopped at any time, by Ctrl-C or a power cut, the same command with --resume gives
    exactly the result of a run that never stopped.

    Examples:

      annotated-transformer train --corpus grammar

      annotated-transformer train --corpus multi30k --run runs/mine --dropout 0.3
    """
    choose_device(device)  # what is not there is named before anything is written
    name = corpus or "grammar"
    folder = run or Path("runs") / (name if name in RECIPES else "own")
    recipe = runs.first_recipe(folder, corpus, resume=resume, start_from=start_from)
    recipe = changed(
        recipe,
        corpus=corpus,
        validation=validation,
        test=test,
        more=more,
        size=size,
        vocab_size=vocab_size,
        source_lang=source_lang,
        target_lang=target_lang,
        model=changed(
            recipe.model,
            d_model=d_model,
            d_ff=d_ff,
            n_heads=n_heads,
            n_layers=n_layers,
            dropout=dropout,
            norm=norm,
        ),
        training=changed(
            paper_rate(recipe.training) if learning_rate == 0 else recipe.training,
            steps=steps,
            batch_tokens=batch_tokens,
            accumulate=accumulate,
            learning_rate=learning_rate or None,
            warmup=warmup,
            smoothing=smoothing,
            consistency=consistency,
            risk=risk,
            validate_every=validate_every,
            patience=patience,
            keep=keep,
            seed=seed,
        ),
    )
    if is_main():
        runs.prepare(folder, recipe, data_dir=data_dir, resume=resume)
    with resumable(folder):
        launch(
            runs.train_run,
            folder,
            data_dir,
            {"resume": resume, "tensorboard": tensorboard, "device": device},
            processes=processes or default_processes(device),
        )
    if is_main():
        history = read_history(folder)
        draw_curve(folder / "curve.png", history)
        best = max(history, key=partial(standing, metric=recipe.metric))
        report({"run": str(folder), **best}, as_json)


@app.command()
def translate(
    sentences: Annotated[
        list[str] | None,
        typer.Argument(help="German sentences.", show_default="lines from stdin"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="A text file, one sentence per line.", dir_okay=False),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    beam_size: BeamSize = 4,
    alpha: Alpha = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Sample instead of searching, at this temperature."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the k likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample from the likeliest tokens, up to mass p."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0,
    split: Annotated[
        bool, typer.Option(help="Translate each sentence of a line on its own.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Translate sentences, a file, or standard input, line by line.

    Each line in gives one line out. A line of several sentences is translated sentence
    by sentence. A line that is too long is named on stderr and stays blank, the others
    are translated, and the exit code is 2. Standard input is translated as it comes.

    Examples:

      annotated-transformer translate "Ein Hund läuft am Strand."

      annotated-transformer translate --file german.txt > english.txt

      echo "Eine Frau liest." | annotated-transformer translate --temperature 0.8
    """
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    given = {"alpha": alpha, **drawing}
    chosen = changed(SearchConfig(beam_size=beam_size, seed=seed), **given)
    translator = load(model, device)
    alpha = translator.alpha if alpha is None else alpha
    search: Any = partial(beam_search, beam_size=beam_size, alpha=alpha)
    if beam_size == 1:
        search = greedy_search
    if any(value is not None for value in drawing.values()):
        search = partial(
            sample,
            temperature=chosen.temperature,
            top_k=top_k,
            top_p=top_p,
            generator=torch.Generator(translator.device).manual_seed(seed),
        )
    translator.make_room(beam_size)
    lines: list[Line] = []
    warned = model is not None
    for texts in given_texts(sentences, file):
        if not warned and any(is_unfamiliar(translator, text) for text in texts):
            warned = True
            warn(CAPTIONS_ONLY)
        new = translate_lines(translator, texts, search=search, split=split)
        if sentences:
            refuse_unreadable(new)
        show_lines(new, len(lines) + 1, str(file or "standard input"), as_json)
        lines += new
    if as_json:
        pairs = [
            {"source": line.source, "translation": line.translation} for line in lines
        ]
        print(json.dumps({"translations": pairs}, ensure_ascii=False))
    if any(line.error for line in lines):
        raise typer.Exit(2)


@app.command()
def evaluate(
    corpus: Annotated[
        str | None,
        typer.Option(help=CORPORA, show_default="the model's training corpus"),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="test, validation or train (tune on validation), or all of a file.",
            show_default="test of the model's own corpus, all of another file",
        ),
    ] = None,
    data_dir: DataDir = None,
    model: Model = None,
    device: Device = "auto",
    beam_size: BeamSize = 5,
    alpha: Alpha = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only this many pairs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Translate a split of a corpus, greedily and by beam search, and score both.

    BLEU and chrF are sacreBLEU's, cased and detokenized; the signature records the
    details. word_bleu is computed over lowercased spaCy words, as in many tutorials.
    Multi30k's test split is test_2016_flickr.

    Example:

      annotated-transformer evaluate --corpus multi30k
    """
    changed(SearchConfig(beam_size=beam_size), alpha=alpha)  # checks them
    translator = load(model, device)
    alpha = translator.alpha if alpha is None else alpha
    corpus, name, pairs = runs.pairs_to_score(
        model or PRETRAINED, corpus, split, data_dir
    )
    pairs = pairs[:limit]
    runs.warn_if_few(name, pairs)
    results = runs.evaluate(translator, pairs, beam_size=beam_size, alpha=alpha)
    facts = {"corpus": corpus, "split": name, "sentences": len(pairs), "alpha": alpha}
    report_scores(facts, results, as_json)


@app.command()
def average(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    last: Annotated[int, typer.Option(help="How many of the last checkpoints.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="RUN-average")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Length penalty that the model keeps as its own (§6.1): choose it "
            "with evaluate --split validation.",
            show_default="0.6",
        ),
    ] = None,
) -> None:
    """Average a run's last checkpoints (§6.1) into a new model folder."""
    whole = run if run.name not in ("", "..") else run.resolve()  # "." has no name
    output = output or whole.parent / (whole.name + "-average")
    chosen = runs.average_run(run, last, output, alpha=alpha)
    print(f"{output}: mean of {', '.join(path.name for path in chosen)}")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    format: Annotated[str, typer.Option(help="onnx or ctranslate2.")],
    model: Model = None,
    quantization: Annotated[
        str,
        typer.Option(help="Kind of the weights' numbers: float32, int8 and others."),
    ] = "float32",
) -> None:
    """Write a model for another runtime, with a script that translates without us."""
    from annotated_transformer.export import export as write
    from annotated_transformer.export import size

    written = write(load(model), out, format=format, quantization=quantization)
    print(f"{written}: {format}, {quantization}, {size(written) / 1e6:.1f} MB")


@app.command()
def download(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder to write.", show_default="the platform's cache"),
    ] = None,
) -> None:
    """Download Multi30k (29,000 German-English captions), verified by SHA-256."""
    print(corpora.download_multi30k(data_dir))


@app.command()
def info(model: Model = None, as_json: AsJson = False) -> None:
    """Show what is installed and what a model folder holds."""
    facts: dict[str, Any] = {
        "annotated_transformer": version("annotated-transformer"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": accelerator() or "cpu",
        "threads": torch.get_num_threads(),
    }
    config = load(model).model.config
    facts |= {
        "model": str(model or "the one that ships"),
        "parameters": parameter_count(config),
        **asdict(config),
    }
    report(facts, as_json)


@app.command()
def doctor(
    place: Place,
    vocab_size: Annotated[
        int | None,
        typer.Option(help="Of the target, if the model does not tell it."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the report as a page with pictures.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine your own Transformer, and name what is wrong with it.

    Your file is run, and its code can do anything: examine what you trust. A model maps
    (src, tgt_in) ids to logits; a Patient (annotated_transformer.doctor) brings the
    training step, the searches and the tokenizer as well. The exit code is 0 if nothing
    is wrong, 1 if something is, and 2 if the model could not be examined.

    Examples:

      annotated-transformer doctor my_model.py

      annotated-transformer doctor my_model.py:build --html report.html
    """
    from annotated_transformer.doctor.loading import examined, print_aside

    with print_aside() if as_json else nullcontext():
        found = examined(place, vocab_size)
        if html:
            found.write_html(html)
    print(found.to_json() if as_json else found)
    if not found.healthy:
        raise typer.Exit(1)


def given_texts(sentences: list[str] | None, file: Path | None) -> Iterator[list[str]]:
    """The arguments, the file's lines, or those of standard input as they come."""
    if sentences and file:
        raise InputError("give sentences or --file, not both")
    if sentences:
        yield sentences
    elif file:
        yield corpora.read_lines(file)
    elif sys.stdin is None:
        raise InputError("there is no standard input: give sentences or --file")
    else:
        yield from corpora.arriving_lines(sys.stdin.buffer, "standard input")


def refuse_unreadable(lines: list[Line]) -> None:
    """Raise InputError if a line has no translation."""
    for line in lines:
        if line.error:
            raise InputError(line.error)


def show_lines(lines: list[Line], first: int, place: str, as_json: bool) -> None:
    """Print translations at once, and why a line, counted from `first`, has none."""
    for number, line in enumerate(lines, first):
        if not as_json:
            print(line.translation)
        if line.error:
            error = f"{place}, line {number} stays untranslated: {line.error}"
            print(f"Error: {error}", file=sys.stderr)
    sys.stdout.flush()


def draw_curve(path: Path, history: list[dict[str, Any]]) -> None:
    """Plot a run's loss and BLEU, as in chapter 14."""
    from annotated_transformer.plots import history_curves, use_style

    use_style()
    with whole_or_nothing(path) as temporary:
        history_curves(history).savefig(temporary, format="png")


def load(model: Path | None, device: str = "cpu") -> Translator:
    """The model asked for, or the one that ships."""
    return Translator.load(model or PRETRAINED, device=device)


def report_scores(facts: dict[str, Any], results: dict, as_json: bool) -> None:
    """Print facts and the scores of each search, as one JSON object or as a table."""
    if as_json:
        report(facts | {"scores": results}, as_json)
        return
    report(facts, as_json)
    for search, scores in results.items():
        print(f"\n{search:>24}")
        for key, value in scores.items():
            shown = f"{value:.2f}" if isinstance(value, float) else value
            print(f"{key:>24}  {shown}")


def report(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts on stdout, as one JSON object or one per line."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for key, value in facts.items():
        print(
            f"{key:>24}  {value:,.4g}"
            if isinstance(value, float)
            else f"{key:>24}  {value}"
        )
