"""A `Patient` out of what a reader has: our model, Hugging Face's, or their own."""

import difflib
import operator
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.decoding import beam_search, greedy_search
from annotated_transformer.doctor.keep import unchanged
from annotated_transformer.doctor.patient import Cache, Ids, Patient
from annotated_transformer.doctor.theirs import required
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.transformer import Transformer

CAPACITY = 256  # tokens that our cache has memory for
PARTS = [part.name for part in fields(Patient) if part.name != "model"]
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
BOXES = (nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)


def as_patient(model: Any, vocab_size: int | None = None, **parts: Any) -> Patient:
    """The patient that this model and these parts make.

    `model` is a Patient, a dict with "model" and parts, our `Transformer`, a Hugging
    Face model that writes text, or a module or function of (src, tgt_in) or of ids
    alone. What the model says of itself is taken from it; `vocab_size` and `parts`
    (fields of `Patient`) come before that, and need not agree with it.
    """
    if isinstance(model, dict):
        model, parts = from_dict(model, parts)
    model = getattr(model, "_orig_mod", model)  # as it was before torch.compile
    if vocab_size is not None:
        parts["vocab_size"] = vocab_size
    elif parts.get("vocab_size", 0) is None:
        del parts["vocab_size"]  # of a dict
    check_names(parts)
    if isinstance(model, Patient):
        return replace(model, **checked(parts))
    check_model(model)
    return Patient(**checked(known_of(model, parts) | parts))


def from_dict(given: dict[str, Any], parts: dict[str, Any]) -> tuple[Any, Any]:
    """The model of a dict, and its other parts, behind those given by name."""
    if "model" in given:
        rest = {name: part for name, part in given.items() if name != "model"}
        return given["model"], rest | parts
    if given and all(isinstance(value, Tensor) for value in given.values()):
        raise InputError(
            "these are a model's weights: build the model, and load them with "
            "model.load_state_dict(weights)"
        )
    raise InputError(
        'the dict has no "model": give {"model": model, "vocab_size": 8_000, ...}'
    )


def check_names(parts: dict[str, Any]) -> None:
    """Refuse a part that no patient has, and name the one that was meant."""
    for name in parts:
        if name not in PARTS:
            close = difflib.get_close_matches(str(name), PARTS, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise InputError(
                f"there is no part called {name}.{meant} Parts are {', '.join(PARTS)}"
            )


def checked(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts, their sizes whole numbers; `Patient` checks how large they are."""
    sizes = {}
    for name in ("vocab_size", "src_vocab_size"):
        if parts.get(name) is not None:
            try:
                sizes[name] = operator.index(parts[name])
            except TypeError:
                raise InputError(
                    f"{name} ({parts[name]!r}) must be a whole number, as 8_000"
                ) from None
            if sizes[name] < 1:
                raise InputError(f"{name} ({sizes[name]}) must be positive")
    return parts | sizes


def check_model(model: Any) -> None:
    """Refuse what is no model, and models of vectors, and say what to give."""
    if isinstance(model, type):
        raise InputError(
            f"{model.__name__} is a class: make a model of it first, "
            f"{model.__name__}(...)"
        )
    if isinstance(model, BOXES):
        raise InputError(
            f"nn.{type(model).__name__} takes vectors, not ids: give the module around "
            "it, which has the embeddings and the output layer"
        )
    if not callable(model):
        raise InputError(
            f"the model is a {type(model).__name__}: give a module or a function that "
            "maps (src, tgt_in), or ids alone, to logits"
        )


def known_of(model: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts that the model itself tells."""
    if isinstance(model, Transformer):
        return ours(model)
    if hasattr(getattr(model, "config", None), "is_encoder_decoder"):
        known = hugging_face(model)
    else:
        known = {"model": model, "module": module_of(model)}
        if "decoder_only" not in parts:
            known["decoder_only"] = takes_ids_alone(model)
    if known.get("vocab_size") is None and "vocab_size" not in parts:
        known |= vocabulary(parts.get("module", known["module"])) or tried(known, parts)
    return known


def ours(model: Transformer) -> dict[str, Any]:
    """Our model, its vocabulary, and the package's ways to decode."""
    sizes = model.config.tgt_vocab_size, model.config.vocab_size
    cache = Cache(
        start=lambda src: model.start(src, CAPACITY),
        step=lambda ids, state: (model.step(ids[:, None], state)[:, 0], state),
        reorder=keep_rows,
    )
    return {
        "model": model,
        "module": model,
        "vocab_size": sizes[0] or sizes[1],
        "src_vocab_size": sizes[1],
        **{"pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK},
        "greedy": lambda src: greedy_search(model, src),
        "beam": lambda src, beam_size: beam_search(model, src, beam_size=beam_size),
        "cache": cache,
    }


def keep_rows(state: Any, rows: Tensor) -> Any:
    """Go on with these rows of our cache, in this order."""
    state.keep(rows)
    return state


def hugging_face(model: Any) -> dict[str, Any]:
    """A model of Hugging Face's, told by its config: they are not imported here."""
    config = model.config
    if not getattr(model, "can_generate", lambda: True)():
        raise InputError(
            f"{type(model).__name__} predicts no next token: load it with "
            "AutoModelForSeq2SeqLM or AutoModelForCausalLM"
        )
    first = {name: first_id(config, f"{name}_token_id") for name in ("bos", "eos")}
    start = first_id(config, "decoder_start_token_id")
    pad = first_id(config, "pad_token_id")
    both = bool(config.is_encoder_decoder)
    special = {
        "bos": first_of(start if both else None, first["bos"], first["eos"]),
        "eos": first["eos"],
    }
    src_size = getattr(config, "vocab_size", None)
    own_pad = None if pad in special.values() else pad
    return {
        "model": sequence_pair(model, pad) if both else ids_alone(model, own_pad),
        "module": model,
        "decoder_only": not both,
        "vocab_size": getattr(config, "decoder_vocab_size", None) or src_size,
        "src_vocab_size": src_size if both else None,
        "pad": pad,
        **{name: token for name, token in special.items() if token is not None},
    }


def first_id(config: Any, name: str) -> int | None:
    """A special token's id; the first one, where a config lists several."""
    token: Any = getattr(config, name, None)
    return token[0] if isinstance(token, list | tuple) else token


def first_of(*ids: int | None) -> int | None:
    """The first that is an id; 0 is one."""
    return next((token for token in ids if token is not None), None)


def sequence_pair(model: Any, pad: int | None) -> Callable[[Ids, Ids], Any]:
    """Call it as (src, tgt_in): causal mask and positions are its own."""

    def call(src: Ids, tgt_in: Ids) -> Any:
        mask = None if pad is None else (src != pad).long()
        return model(input_ids=src, attention_mask=mask, decoder_input_ids=tgt_in)

    return call


def ids_alone(model: Any, pad: int | None) -> Callable[[Ids], Any]:
    """Call it with ids; padding is masked if it has an id of its own."""

    def call(ids: Ids) -> Any:
        mask = None if pad is None else (ids != pad).long()
        return model(input_ids=ids, attention_mask=mask)

    return call


def module_of(model: Any) -> nn.Module | None:
    """The module that a model is, or whose method it is."""
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def takes_ids_alone(model: Any) -> bool:
    """Whether it needs one argument, ids, and not two, (src, tgt_in)."""
    model = model.module if isinstance(model, WRAPPERS) else model
    needed = required(model.forward if isinstance(model, nn.Module) else model)
    if not needed:
        raise InputError(
            "what the model takes can't be told from its signature: say "
            "decoder_only=False for (src, tgt_in), decoder_only=True for ids alone"
        )
    if len(needed) > 2:
        raise InputError(
            f"the model takes {', '.join(needed)}, and not (src, tgt_in) or ids alone: "
            "give a function that does, such as lambda src, tgt_in: model(src, tgt_in, "
            "masks(src, tgt_in)), and the model as module"
        )
    return len(needed) == 1


def vocabulary(module: nn.Module | None) -> dict[str, int]:
    """The sizes of the vocabularies, from the embeddings and the output layer.

    The output layer decides if an embedding has as many rows; an embedding whose name
    speaks of the source tells the source's. Nothing, if they can't be told.
    """
    named = list(module.named_modules()) if module is not None else []
    linear = [part for _, part in named if isinstance(part, nn.Linear)]
    rows = {
        name.lower(): part.num_embeddings
        for name, part in named
        if isinstance(part, nn.Embedding) and "pos" not in name.lower()
    }
    outputs = linear[-1].out_features if linear else None
    if outputs in rows.values():
        source = [n for name, n in rows.items() if "src" in name or "enc" in name]
        sizes = {"vocab_size": outputs, "src_vocab_size": max(source, default=None)}
        return {name: size for name, size in sizes.items() if size is not None}
    if rows:
        return {"vocab_size": max(rows.values())}
    if outputs is None or any(part.in_features == outputs for part in linear):
        return {}
    return {"vocab_size": outputs}


def tried(known: dict[str, Any], parts: dict[str, Any]) -> dict[str, int]:
    """The vocabulary's size from the logits of three ids."""
    patient = Patient(**known | parts | {"vocab_size": 8})
    ids = torch.full((1, 3), 3)
    try:
        with unchanged(patient), torch.no_grad():
            logits = patient(*(ids,) * (1 if patient.decoder_only else 2))
    except Exception:
        raise InputError(
            "the vocabulary's size can't be told from the model: give vocab_size, the "
            "number of its tokens, as vocab_size=8_000"
        ) from None
    return {"vocab_size": logits.size(-1)}
