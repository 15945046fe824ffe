"""Draw the picture of the README: one translation, and the attention that made it.

python tools/picture.py

Takes the model that ships; another one's folder can be named.
"""

import argparse
from pathlib import Path

import torch

from annotated_transformer.attention import record_attention
from annotated_transformer.checkpoints import whole_or_nothing
from annotated_transformer.decoding import beam_search
from annotated_transformer.plots import heatmap, use_style
from annotated_transformer.tokenizers import BOS, EOS
from annotated_transformer.translator import PRETRAINED, Translator

SENTENCE = "Eine Frau wartet, während ein Mann ein altes Auto repariert."
PICTURE = Path(__file__).parents[1] / "book" / "images" / "attention.png"


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
    model, tokenizer = translator.model, translator.tokenizer
    src = torch.tensor([translator.encode(arguments.sentence)])
    (output,) = beam_search(model, src)  # as `translate` does
    with torch.no_grad(), record_attention(model) as maps:
        model(src, torch.tensor([[BOS, *output]]))  # predicts output and end token
    layers = [weights for name, weights in maps.items() if "cross" in name]
    figure = heatmap(
        layers[arguments.layer][0].mean(0),  # the mean of the heads
        rows=tokenizer.target_pieces([*output, EOS]),
        columns=tokenizer.source_pieces(src[0].tolist()),
        title=f"“{tokenizer.decode(output)}”",
        xlabel="German tokens, looked at",
        ylabel="English tokens, written one by one",
    )
    with whole_or_nothing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    print(f"{PICTURE.name}: {arguments.sentence} -> {tokenizer.decode(output)}")


if __name__ == "__main__":
    main()
