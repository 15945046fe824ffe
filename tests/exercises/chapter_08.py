"""Chapter 08: right answers in several styles; wrong ones, and what must be said."""

from dataclasses import replace

import torch

from annotated_transformer.masks import causal_mask, padding_mask


def count(c, layers=None):
    d = c.d_model
    attention = 2 * d * c.n_heads * (c.key_size + c.value_size)
    feed_forward = 2 * d * c.d_ff + c.d_ff + d
    each = 3 * attention + 2 * feed_forward + 5 * 2 * d
    last_norms = 2 * 2 * d if c.norm == "pre" else 0
    positions = c.max_length * d if c.positions == "learned" else 0
    rows = c.vocab_size + (c.tgt_vocab_size or 0)
    return rows * d + (layers or c.n_layers) * each + last_norms + positions


def count_by_shapes(c):
    d, k, v = c.d_model, c.n_heads * c.key_size, c.n_heads * c.value_size
    attention = [(k, d), (k, d), (v, d), (d, v)]
    feed_forward = [(d, c.d_ff), (c.d_ff, 1), (c.d_ff, d), (d, 1)]
    shapes = 3 * attention + 2 * feed_forward + 5 * 2 * [(d, 1)]
    shapes = c.n_layers * shapes + [(c.vocab_size, d)]
    shapes += [(c.tgt_vocab_size, d)] if c.tgt_vocab_size else []
    shapes += [(c.max_length, d)] if c.positions == "learned" else []
    shapes += 4 * [(d, 1)] if c.norm == "pre" else []
    return torch.tensor([rows * columns for rows, columns in shapes]).sum()


def off(by):
    return lambda c: count(c) + by(c)


def language_model(model, ids, mask=causal_mask):
    x = model.embed(model.src_embeddings, ids)
    return model.logits(model.encoder(x, mask(ids.size(1))))


def layer_by_layer(model, ids):
    length = ids.shape[1]
    mask = torch.ones(length, length).tril().bool() & padding_mask(ids)
    x = model.dropout(model.positions(model.src_embeddings(ids)))
    for layer in model.encoder.layers:
        x = layer(x, mask)
    return model.encoder.norm(x) @ model.src_embeddings.weight.T


def without_last_norm(model, ids):
    x = model.embed(model.src_embeddings, ids)
    for layer in model.encoder.layers:
        x = layer(x, causal_mask(ids.size(1)))
    return model.logits(x)


def switches_to_eval(model, ids):
    return language_model(model.eval(), ids)


def without_gradient(model, ids):
    with torch.no_grad():
        return language_model(model, ids)


def no_positions(model, ids):
    x = model.src_embeddings(ids)
    return model.logits(model.encoder(x, causal_mask(ids.size(1))))


def decoder(layer, x, memory, src_mask, tgt_mask, order=(0, 1, 2)):
    first, second, third = (layer.residuals[i] for i in order)
    x = first(x, lambda normed: layer.self_attention(normed, mask=tgt_mask))
    x = second(x, lambda normed: layer.cross_attention(normed, memory, src_mask))
    return third(x, layer.feed_forward)


def half_repaired(layer, x, memory, src_mask, tgt_mask):
    first, second, third = layer.residuals
    x = first(x, lambda normed: layer.self_attention(x, mask=tgt_mask))
    x = second(x, lambda normed: layer.cross_attention(normed, memory, src_mask))
    return third(x, layer.feed_forward)


def result_unused(layer, x, memory, src_mask, tgt_mask):
    first, second, third = layer.residuals
    x = first(x, lambda normed: layer.self_attention(normed, mask=tgt_mask))
    _ = second(x, lambda normed: layer.cross_attention(normed, memory, src_mask))
    return third(x, layer.feed_forward)


def without_residuals(layer, x, memory, src_mask, tgt_mask):
    x = x + layer.self_attention(x, mask=tgt_mask)
    x = x + layer.cross_attention(x, memory, src_mask)
    return x + layer.feed_forward(x)


def cross_first(layer, x, memory, src_mask, tgt_mask):
    first, second, third = layer.residuals
    x = second(x, lambda normed: layer.cross_attention(normed, memory, src_mask))
    x = first(x, lambda normed: layer.self_attention(normed, mask=tgt_mask))
    return third(x, layer.feed_forward)


def in_train(layer, *inputs):
    return decoder(layer.train(), *inputs)


def encoder(layer, x, src_mask, order=(0, 1)):
    first, second = (layer.residuals[i] for i in order)
    x = first(x, lambda normed: layer.self_attention(normed, mask=src_mask))
    return second(x, layer.feed_forward)


def by_formula(layer, x, src_mask):
    sublayers = (lambda z: layer.self_attention(z, z, src_mask), layer.feed_forward)
    for residual, sublayer in zip(layer.residuals, sublayers, strict=True):
        if type(residual).__name__ == "PostNorm":
            x = residual.norm(x + sublayer(x))
        else:
            x = x + sublayer(residual.norm(x))
    return x


def outer_x(layer, x, src_mask):
    y = layer.residuals[0](x, lambda normed: layer.self_attention(x, mask=src_mask))
    return layer.residuals[1](y, layer.feed_forward)


def only_sums(layer, x, src_mask):
    x = x + layer.self_attention(x, mask=src_mask)
    return x + layer.feed_forward(x)


def feed_forward_first(layer, x, src_mask):
    first, second = layer.residuals
    x = first(x, layer.feed_forward)
    return second(x, lambda normed: layer.self_attention(normed, mask=src_mask))


RIGHT = [
    ("check_encoder", encoder),
    ("check_encoder", by_formula),
    ("check_encoder", lambda layer, *inputs: layer(*inputs)),
    ("check_count", count),
    ("check_count", count_by_shapes),
    ("check_language_model", language_model),
    ("check_language_model", layer_by_layer),
    ("check_decoder", decoder),
    ("check_decoder", lambda layer, *inputs: layer(*inputs)),
]
WRONG = [
    ("check_encoder", lambda *case: None, "not done yet"),
    ("check_encoder", lambda one, x, m: encoder(one, x, None), "padding is seen"),
    ("check_encoder", lambda one, x, m: encoder(one, x, m, (1, 0)), "another order"),
    ("check_encoder", lambda one, x, m: encoder(one, x, m, (0, 0)), "never used"),
    ("check_encoder", outer_x, "not the outer x"),
    ("check_encoder", only_sums, "only the sum is there"),
    ("check_encoder", feed_forward_first, "self-attention comes first"),
    (
        "check_encoder",
        lambda one, x, m: one.residuals[0](x, lambda z: one.self_attention(z, mask=m)),
        "the feed-forward is missing",
    ),
    ("check_encoder", lambda one, x, m: encoder(one, x, m)[:, :5], "the shape"),
    ("check_encoder", lambda *case: encoder(*case).detach(), "no gradient comes"),
    ("check_encoder", lambda *case: [encoder(*case)], "return a tensor, not a list"),
    ("check_encoder", lambda x: x, "takes 1 positional argument but 3 were given"),
    ("check_encoder", lambda one, x, m: encoder(one.train(), x, m), "changes train()"),
    ("check_count", lambda c: None, "not done yet"),
    ("check_count", lambda c: "many", "return one number, not a str"),
    ("check_count", lambda c: count(c) / 1e6, "is no whole number"),
    ("check_count", off(lambda c: -c.n_layers * 10 * c.d_model), "the layer norms?"),
    ("check_count", off(lambda c: -2 * c.n_layers * c.d_ff), "is b1 forgotten?"),
    ("check_count", off(lambda c: c.n_layers * 12 * c.d_model), "have no biases"),
    (
        "check_count",
        off(lambda c: c.vocab_size + c.n_layers * 12 * c.d_model),
        "two mistakes: the output has no bias",
    ),
    ("check_count", lambda c: count(c, 1), "the layers count 3 times"),
    ("check_count", lambda c: count(c, 6), "3 layers here, not 6"),
    ("check_count", off(lambda c: 1), "+1 off for 3 layers, width 22"),
    ("check_count", lambda c: count(replace(c, d_k=None)), "if d_k differs from"),
    ("check_count", lambda c: count(replace(c, d_v=None)), "if d_v differs: it is"),
    ("check_count", lambda c: count(replace(c, norm="post")), "after each stack"),
    ("check_count", lambda c: count(replace(c, tgt_vocab_size=None)), "two matrices"),
    ("check_count", lambda c: count(replace(c, positions="sinusoidal")), "max_length"),
    ("check_language_model", lambda model, ids: None, "not done yet"),
    ("check_language_model", lambda m, ids: m.logits(m.encode(ids)), "no future"),
    ("check_language_model", lambda m, ids: m(ids, ids), "one stack is enough"),
    ("check_language_model", lambda m, ids: m.encode(ids), "these are features"),
    (
        "check_language_model",
        lambda m, ids: language_model(m, ids).softmax(-1),
        "these are probabilities",
    ),
    (
        "check_language_model",
        lambda m, ids: language_model(m, ids, lambda n: ~causal_mask(n)),
        "upside down",
    ),
    (
        "check_language_model",
        lambda m, ids: language_model(m, ids, lambda n: causal_mask(n).tril(-1)),
        "may look at itself",
    ),
    (
        "check_language_model",
        lambda m, ids: language_model(m, ids, lambda n: causal_mask(5)),
        "fails at another length",
    ),
    ("check_language_model", no_positions, "there are no positions"),
    ("check_language_model", without_last_norm, "pre-norm needs the last norm"),
    ("check_language_model", lambda m, ids: language_model(m, ids)[:, -1], "the shape"),
    ("check_language_model", without_gradient, "no gradient comes through"),
    ("check_language_model", switches_to_eval, "changes train() or eval() of model"),
    ("check_decoder", lambda *case: None, "not done yet"),
    ("check_decoder", half_repaired, "right for PostNorm only"),
    ("check_decoder", result_unused, "the memory is never read"),
    ("check_decoder", without_residuals, "one of the three residuals is never used"),
    ("check_decoder", cross_first, "self-attention comes first"),
    (
        "check_decoder",
        lambda one, x, m, src, tgt: decoder(one, x, m, src, tgt, (1, 0, 2)),
        "the residuals are used in another order",
    ),
    (
        "check_decoder",
        lambda one, x, m, src, tgt: decoder(one, x, m, None, tgt),
        "padding",
    ),
    (
        "check_decoder",
        lambda one, x, m, src, tgt: decoder(one, x, m, src, None),
        "future",
    ),
    (
        "check_decoder",
        lambda one, x, m, src, tgt: decoder(one, x, m, tgt, src),
        "sizes",
    ),
    (
        "check_decoder",
        lambda one, x, m, src, tgt: decoder(one, x.detach(), m, src, tgt),
        "no gradient for x comes through",
    ),
    ("check_decoder", lambda *case: decoder(*case).detach(), "no gradient comes"),
    ("check_decoder", in_train, "changes train() or eval() of layer"),
]
