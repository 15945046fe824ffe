"""Compile the stacks as on a GPU, on this CPU: a program, as types are unchecked here.

Prints for each norm how many graphs had been compiled after each batch, as JSON. Fails
where the compiled stacks give another loss or another gradient.
"""

import json

import torch
from torch._dynamo.backends.debugging import aot_eager
from torch.testing import assert_close

from annotated_transformer.batches import Batch
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import compile_stacks
from annotated_transformer.objectives import Objective
from annotated_transformer.transformer import Transformer

SIZES = {"vocab_size": 97, "d_model": 32, "d_ff": 48, "n_heads": 4, "n_layers": 2}
LENGTHS = [(2, 7, 5), (3, 9, 6), (5, 4, 11), (7, 2, 8), (2, 30, 31)]  # batch, src, tgt


def batches():
    for n, src, tgt in LENGTHS:
        batch = Batch(*(torch.randint(4, 97, (n, length)) for length in (src, tgt)))
        batch.src[0, 1:] = 0  # padding
        yield batch


def loss_and_gradients(model, batch):
    loss = Objective(model, 0.1)(batch)
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


def graphs_after_each_batch(norm):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(**SIZES, norm=norm, dropout=0.0))
    cases = [(batch, loss_and_gradients(model, batch)) for batch in batches()]
    names = set(model.state_dict())
    graphs, counts = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compile_stacks(model.encoder, model.decoder, backend=backend)
    for batch, right in cases:
        assert_close(loss_and_gradients(model, batch), right)
        counts.append(len(graphs))
    assert set(model.state_dict()) == names, "checkpoints would have other names"
    return counts


if __name__ == "__main__":
    print(json.dumps({norm: graphs_after_each_batch(norm) for norm in ("post", "pre")}))
