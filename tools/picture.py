"""Draw the picture of the README: one translation, and the attention that made it.

python tools/picture.py

It uses the model that ships with the package, unless you name another one's folder.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from annotated_transformer.decoding import beam_search
from annotated_transformer.files import whole_or_nothing
from annotated_transformer.plots import heatmap, use_style
from annotated_transformer.recording import record_attention
from annotated_transformer.special import BOS, EOS
from annotated_transformer.translator import PRETRAINED, Translator

SENTENCE = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
PICTURE = Path(__file__).parents[1] / "book" / "images" / "attention.png"


def cross_attention(
    translator: Translator, sentence: str, layer: int
) -> tuple[Tensor, list[int], list[int]]:
    """One layer's map (query, key), the mean of its heads; German and English ids.

    The rows are the English ids that the model wrote, including the end token.
    """
    model = translator.model
    src = torch.tensor([translator.encode(sentence)])
    (output,) = beam_search(model, src, alpha=translator.alpha)  # as `translate` does
    with torch.no_grad(), record_attention(model) as maps:
        model(src, torch.tensor([[BOS, *output]]))  # predicts output and end token
    layers = [weights for name, weights in maps.items() if "cross" in name]
    return layers[layer][0].mean(0), src[0].tolist(), [*output, EOS]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", type=Path, nargs="?", default=PRETRAINED, help="folder of a model"
    )
    parser.add_argument("--sentence", default=SENTENCE)
    parser.add_argument("--layer", type=int, default=-1)
    arguments = parser.parse_args()
    use_style()

    translator = Translator.load(arguments.model)
    weights, german, english = cross_attention(
        translator, arguments.sentence, arguments.layer
    )
    translation = translator.tokenizer.decode(english)
    figure = heatmap(
        weights,
        rows=translator.tokenizer.target_pieces(english),
        columns=translator.tokenizer.source_pieces(german),
        title=f"“{translation}”",
        xlabel="German tokens, looked at",
        ylabel="English tokens, written one by one",
    )
    with whole_or_nothing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    print(f"{PICTURE.name}: {arguments.sentence} -> {translation}")


if __name__ == "__main__":
    main()
