"""Wrong answers to problem set 4, the points they deserve, and what must be said."""

from tools.wrong_answers import Wrong

ADAM = "    update = m_hat / (v_hat.sqrt() + EPS) + decay * weight\n"
RATIO = "    ratio = long / length if long > 0 and length > 0 else 1.0\n"
PIECE = """    if piece.n_tokens:
        loss = model(piece) * piece.n_tokens
        loss.backward()
        total += loss.detach()
"""
NO_GRADIENT = """        if p.grad is None:
            p.grad = torch.zeros_like(p)
"""
MEANS = [
    ("        loss = model(piece) * piece.n_tokens", "        loss = model(piece)"),
    ("torch.tensor(float(piece.n_tokens))", "torch.ones(())"),
]
CHOSEN = "(torch.rand(ids.shape, generator=generator) < 0.15) & (ids > MASK)"
FATES = """    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(MASK + 1, vocab_size, ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.8), MASK, ids)
    inputs = torch.where(chosen & (fate >= 0.9), words, inputs)
"""
TWO_DRAWS = """    draw = lambda: torch.rand(ids.shape, generator=generator)
    words = torch.randint(MASK + 1, vocab_size, ids.shape, generator=generator)
    inputs = torch.where(chosen & (draw() < 0.8), MASK, ids)
    inputs = torch.where(chosen & (draw() < 0.1), words, inputs)
"""
OF_THE_REST = """    draw = lambda: torch.rand(ids.shape, generator=generator)
    words = torch.randint(MASK + 1, vocab_size, ids.shape, generator=generator)
    masked = chosen & (draw() < 0.8)
    swapped = chosen & ~masked & (draw() < 0.1)
    inputs = torch.where(masked, MASK, torch.where(swapped, words, ids))
"""
LARGEST = "largest = weight.abs().amax(1)"
CODES = "(weight / scale[:, None]).round().clamp(-127, 127)"

WRONG = {
    "rms_norm": [
        Wrong(
            "the mean subtracted: layer norm",
            [
                (
                    "    mean_square =",
                    "    x = x - x.mean(-1, keepdim=True)\n    mean_square =",
                )
            ],
            3,
            "that is layer norm",
        ),
        Wrong(
            "the sum of squares, not their mean",
            [("square().mean(", "square().sum(")],
            3,
            "the MEAN of the squares is wanted",
        ),
        Wrong(
            "no root",
            [("torch.rsqrt(mean_square + eps)", "1 / (mean_square + eps)")],
            3,
            "divided by the mean square: take its root",
        ),
        Wrong(
            "over the length",
            [(".mean(-1, keepdim", ".mean(-2, keepdim")],
            3,
            "that is over the length: take the last axis",
        ),
        Wrong(
            "no `keepdim`",
            [(".mean(-1, keepdim=True)", ".mean(-1)")],
            3,
            "is it kept (keepdim)?",
        ),
        Wrong(
            "the gain forgotten",
            [("gain * x", "x")],
            5,
            "the gain is forgotten",
        ),
        Wrong(
            "1 + gain, as some models have it",
            [("gain * x", "(1 + gain) * x")],
            3,
            "This gain is the whole factor",
        ),
        Wrong(
            "eps beside the root",
            [("torch.rsqrt(mean_square + eps)", "1 / (mean_square.sqrt() + eps)")],
            6,
            "is eps (1e-5) added inside the root?",
        ),
        Wrong(
            "no eps",
            [("mean_square + eps", "mean_square")],
            6,
            "is there an eps?",
        ),
        Wrong(
            "eps written as a number",
            [("mean_square + eps", "mean_square + 1e-5")],
            6,
            "eps is an argument",
        ),
        Wrong(
            "the scale on the stream, too",
            [("x + scale * sublayer(norm(x))", "scale * (x + sublayer(norm(x)))")],
            5,
            "it belongs on the branch alone",
        ),
        Wrong(
            "the scale not used",
            [("scale * sublayer", "sublayer")],
            5,
            "the scale is not used",
        ),
        Wrong(
            "the scale before the layer",
            [("scale * sublayer(norm(x))", "sublayer(scale * norm(x))")],
            5,
            "the scale comes after the layer",
        ),
        Wrong(
            "the stream normed",
            [("return x + scale", "x = norm(x)\n    return x + scale")],
            5,
            "the stream itself is normed",
        ),
        Wrong(
            "post-norm",
            [("x + scale * sublayer(norm(x))", "norm(x + scale * sublayer(x))")],
            5,
            "that is post-norm",
        ),
        Wrong(
            "no residual",
            [("x + scale", "scale")],
            5,
            "where is the residual?",
        ),
        Wrong(
            "adds to the caller's x",
            [
                (
                    "return x + scale * sublayer(norm(x))",
                    "x += scale * sublayer(norm(x))\n    return x",
                )
            ],
            5,
            "your function changes x",
        ),
    ],
    "lamb": [
        Wrong(
            "no trust ratio: that is AdamW",
            [("rate * ratio * update", "rate * update")],
            5,
            "where is the trust ratio?",
        ),
        Wrong(
            "the ratio upside down",
            [("ratio = long / length", "ratio = length / long")],
            5,
            "the ratio is upside down",
        ),
        Wrong(
            "the gradient's length for the update's",
            [("weight.norm(), update.norm()", "weight.norm(), gradient.norm()")],
            5,
            "divided by the GRADIENT's length",
        ),
        Wrong(
            "a ratio for each row",
            [
                (
                    "weight.norm(), update.norm()",
                    "(x.norm(dim=1, keepdim=True) for x in (weight, update))",
                ),
                (
                    RATIO,
                    "    ratio = torch.where(long * length > 0, long / length, 1.0)\n",
                ),
            ],
            5,
            "not one for each row",
        ),
        Wrong(
            "squares added up, no root",
            [
                (
                    "weight.norm(), update.norm()",
                    "weight.square().sum(), update.square().sum()",
                )
            ],
            5,
            "a length is the ROOT of the sum of squares",
        ),
        Wrong(
            "the ratio clipped at 1",
            [("ratio = long / length if", "ratio = min(1.0, long / length) if")],
            5,
            "the ratio may be above 1",
        ),
        Wrong(
            "weights of zeros never move",
            [(" if long > 0 and length > 0 else 1.0", " if length > 0 else 1.0")],
            7,
            "weights of zeros never move",
        ),
        Wrong(
            "0 divided by 0",
            [(" if long > 0 and length > 0 else 1.0", " if long > 0 else 1.0")],
            7,
            "NaN, as a norm is 0",
        ),
        Wrong(
            "no bias correction",
            [("m / (1 - BETA1**t), v / (1 - BETA2**t)", "m, v")],
            5,
            "no bias correction",
        ),
        Wrong(
            "v not corrected",
            [("v / (1 - BETA2**t)", "v")],
            5,
            "v is not corrected",
        ),
        Wrong(
            "off by one: steps counted from 0",
            [
                ("BETA1**t), v", "BETA1 ** (t + 1)), v"),
                ("BETA2**t", "BETA2 ** (t + 1)"),
            ],
            5,
            "t counts from 1",
        ),
        Wrong(
            "the corrected averages returned",
            [("update, m, v", "update, m_hat, v_hat")],
            8,
            "m is returned corrected",
        ),
        Wrong(
            "the gradient not squared",
            [("gradient.square()", "gradient")],
            0,
            "v averages squares",
        ),
        Wrong(
            "the betas swapped",
            [
                ("BETA1 * m + (1 - BETA1)", "BETA2 * m + (1 - BETA2)"),
                ("BETA2 * v + (1 - BETA2)", "BETA1 * v + (1 - BETA1)"),
            ],
            0,
            "m takes 0.9, and v 0.999",
        ),
        Wrong(
            "eps inside the root",
            [("(v_hat.sqrt() + EPS)", "(v_hat + EPS).sqrt()")],
            7,
            "eps stands beside the root",
        ),
        Wrong(
            "decay as in Adam with L2: in the gradient",
            [
                (
                    "    m = BETA1",
                    "    gradient = gradient + decay * weight\n    m = BETA1",
                ),
                (" + decay * weight\n    long", "\n    long"),
            ],
            8,
            "added to the gradient",
        ),
        Wrong(
            "decay as in AdamW: outside the ratio",
            [
                (" + decay * weight\n    long", "\n    long"),
                ("rate * ratio * update", "rate * (ratio * update + decay * weight)"),
            ],
            8,
            "the decay stands outside the ratio",
        ),
        Wrong(
            "the ratio taken before the decay",
            [
                (" + decay * weight\n    long", "\n    long"),
                (RATIO, RATIO + "    update = update + decay * weight\n"),
            ],
            8,
            "the ratio was taken before the decay",
        ),
        Wrong(
            "no decay",
            [(" + decay * weight\n    long", "\n    long")],
            8,
            "the decay is not used",
        ),
        Wrong(
            "writes into the caller's averages",
            [
                ("m = BETA1 * m +", "m.mul_(BETA1).add_("),
                ("(1 - BETA1) * gradient\n", "(1 - BETA1) * gradient)\n"),
            ],
            8,
            "your function changes m",
        ),
    ],
    "shared": [
        Wrong(
            "a mean of means",
            MEANS,
            3,
            "a mean of means: a process with few labels counts as much",
        ),
        Wrong(
            "a sum of means",
            [*MEANS, ("        p.grad /= n_tokens\n", "")],
            3,
            "all_reduce ADDS",
        ),
        Wrong(
            "each divides by its own labels",
            [("    all_reduce(n_tokens)\n", "")],
            3,
            "all_reduce the count, too",
        ),
        Wrong(
            "nothing divided",
            [("        p.grad /= n_tokens\n", "")],
            5,
            "a sum over all labels: divide by their number",
        ),
        Wrong(
            "the gradients never sent",
            [("        all_reduce(p.grad)\n", "")],
            5,
            "all_reduce each p.grad",
        ),
        Wrong(
            "the result of `all_reduce` used, which is None",
            [("        all_reduce(p.grad)\n", "        p.grad = all_reduce(p.grad)\n")],
            3,
            "all_reduce returns nothing",
        ),
        Wrong(
            "a number sent, not a tensor",
            [("torch.tensor(float(piece.n_tokens)), torch", "piece.n_tokens, torch")],
            3,
            "all_reduce takes a tensor, not int",
        ),
        Wrong(
            "the loss of its own piece returned",
            [("    all_reduce(total)\n", "")],
            10,
            "all_reduce it, too",
        ),
        Wrong(
            "the loss a mean of means",
            [
                (
                    "    all_reduce(total)",
                    "    total, n = total / piece.n_tokens, torch.ones(())\n"
                    "    all_reduce(total)\n    all_reduce(n)",
                ),
                ("(total / n_tokens)", "(total / n)"),
            ],
            7,
            "the loss returned is a mean of means",
        ),
        Wrong(
            "a piece without labels is skipped: the others wait",
            [
                (
                    PIECE,
                    "    if not piece.n_tokens:\n        return 0.0\n" + PIECE,
                )
            ],
            9,
            "and waits for ever",
        ),
        Wrong(
            "0 / 0, times 0",
            [
                (PIECE, PIECE.replace("if piece.n_tokens:", "if True:")),
            ],
            9,
            "a mean over no labels is 0 / 0",
        ),
        Wrong(
            "a process without labels has no gradients to send",
            [(NO_GRADIENT, "        if p.grad is None:\n            continue\n")],
            9,
            "and waits for ever",
        ),
        Wrong(
            "the loss for DDP as it is: a mean of means",
            [("loss * n_tokens * n_processes / everywhere", "loss")],
            9,
            "a mean of means: weigh the loss by its labels",
        ),
        Wrong(
            "for DDP, not times the number of processes",
            [("n_tokens * n_processes /", "n_tokens /")],
            9,
            "DDP divides by the number of processes",
        ),
        Wrong(
            "for DDP, upside down",
            [
                (
                    "loss * n_tokens * n_processes / everywhere",
                    "loss * everywhere / (n_tokens * n_processes)",
                )
            ],
            9,
            "upside down: own labels over all",
        ),
        Wrong(
            "for DDP, a number",
            [("return loss * n_tokens", "return loss.item() * n_tokens")],
            9,
            "is there a detach, .item() or no_grad?",
        ),
    ],
    "bug_mask_words": [
        Wrong(
            "the careless one again",
            "mask_words = careless_mask_words",
            0,
            "copying is all it would learn",
        ),
        Wrong(
            "padding and special tokens chosen, too",
            [(" & (ids > MASK)", "")],
            5,
            "padding is chosen, too",
        ),
        Wrong(
            "BOS and EOS chosen, too",
            [("(ids > MASK)", "(ids != PAD)")],
            5,
            "BOS is chosen, too",
        ),
        Wrong(
            "UNK chosen, too",
            [("(ids > MASK)", "(ids >= UNK)")],
            5,
            "UNK is chosen, too",
        ),
        Wrong(
            "labels everywhere",
            [("torch.where(chosen, ids, IGNORE)", "ids.clone()")],
            3,
            "copying is all it would learn",
        ),
        Wrong(
            "labels of padding, not IGNORE",
            [("torch.where(chosen, ids, IGNORE)", "torch.where(chosen, ids, PAD)")],
            3,
            "0 is a token, PAD",
        ),
        Wrong(
            "labels where nothing was chosen",
            [("torch.where(chosen, ids, IGNORE)", "torch.where(chosen, IGNORE, ids)")],
            3,
            "words were changed that no label asks for: reversed?",
        ),
        Wrong(
            "labels taken after masking",
            [
                ("    labels = torch.where(chosen, ids, IGNORE)\n", ""),
                (
                    "    return inputs, labels",
                    "    return inputs, torch.where(chosen, inputs, IGNORE)",
                ),
            ],
            6,
            "a label is the word that WAS there",
        ),
        Wrong(
            "labels only where the mask stands",
            [
                ("    labels = torch.where(chosen, ids, IGNORE)\n", ""),
                (
                    "    return inputs, labels",
                    "    return inputs, torch.where(inputs == MASK, ids, IGNORE)",
                ),
            ],
            3,
            "words were changed that no label asks for",
        ),
        Wrong(
            "15 % are left, 85 % chosen",
            [("generator) < 0.15)", "generator) > 0.15)")],
            5,
            "85 % are chosen",
        ),
        Wrong(
            "every chosen word masked",
            [("(fate < 0.8), MASK", "(fate < 1), MASK"), ("fate >= 0.9", "fate > 1")],
            5,
            "every chosen word is masked: 80 %",
        ),
        Wrong(
            "no chosen word stays",
            [("fate >= 0.9", "fate >= 0.8")],
            5,
            "no chosen word stays as it is",
        ),
        Wrong(
            "a second draw swaps masked words",
            [(FATES, TWO_DRAWS)],
            5,
            "a second draw swaps words that were masked",
        ),
        Wrong(
            "10 % of the rest swapped",
            [(FATES, OF_THE_REST)],
            5,
            "10 % of the REST",
        ),
        Wrong(
            "swapped for special tokens",
            [("torch.randint(MASK + 1, vocab", "torch.randint(0, vocab")],
            5,
            "a word is swapped for a special token",
        ),
        Wrong(
            "off by one: the last word never comes",
            [("(MASK + 1, vocab_size,", "(MASK + 1, vocab_size - 1,")],
            5,
            "randint leaves its upper end out",
        ),
        Wrong(
            "one random word for all",
            [
                (
                    "vocab_size, ids.shape, generator=generator)",
                    "vocab_size, (1,), generator=generator).expand_as(ids)",
                )
            ],
            5,
            "every swapped word becomes the same",
        ),
        Wrong(
            "the same places in every sentence",
            [
                (
                    "(torch.rand(ids.shape, generator=generator) < 0.15)",
                    "(torch.rand(ids.shape[1:], generator=generator) < 0.15)",
                )
            ],
            5,
            "the same places in every sentence",
        ),
        Wrong(
            "the generator not used",
            [("generator=generator", "generator=None")],
            5,
            "it draws from the global random state",
        ),
    ],
    "int8": [
        Wrong(
            "divided by 128",
            [("largest / 127", "largest / 128")],
            6,
            "128 does not fit into int8",
        ),
        Wrong(
            "from the range, 255 steps",
            [
                (
                    LARGEST,
                    "largest = (weight.amax(1) - weight.amin(1)) / 255 * 127",
                )
            ],
            6,
            "no zero point here",
        ),
        Wrong(
            "the largest number without its sign",
            [(LARGEST, "largest = weight.amax(1)")],
            6,
            "take abs() first",
        ),
        Wrong(
            "one scale for the whole matrix",
            [(LARGEST, "largest = weight.abs().max().expand(len(weight))")],
            5,
            "one scale for the whole matrix: one for each row",
        ),
        Wrong(
            "one scale for each column",
            [
                (LARGEST, "largest = weight.abs().amax(0)"),
                ("/ scale[:, None]", "/ scale"),
            ],
            3,
            "a row is an output channel",
        ),
        Wrong(
            "the scale upside down",
            [
                ("largest / 127, 1.0)", "127 / largest, 1.0)"),
                ("weight / scale", "weight * scale"),
            ],
            4,
            "upside down: a code times its scale is the weight",
        ),
        Wrong(
            "cut off, not rounded",
            [(CODES, "(weight / scale[:, None]).clamp(-127, 127)")],
            6,
            "cut off, not rounded",
        ),
        Wrong(
            "out of int8, and wrapped around",
            [
                ("largest / 127", "largest / 128"),
                (".round().clamp(-127, 127)", ".round()"),
                ("codes.to(torch.int8)", "codes.int().to(torch.int8)"),
            ],
            3,
            "the largest number has lost its sign",
        ),
        Wrong(
            "uint8, shifted by 128",
            [("codes.to(torch.int8)", "(codes + 128).to(torch.uint8)")],
            5,
            "the codes should be int8, not torch.uint8",
        ),
        Wrong(
            "floats returned",
            [("codes.to(torch.int8)", "codes")],
            6,
            "the codes should be int8, not torch.float32",
        ),
        Wrong(
            "a row of zeros divided by 0",
            [("torch.where(largest > 0, largest / 127, 1.0)", "largest / 127")],
            7,
            "give it any positive scale",
        ),
        Wrong(
            "scales held above 0.00001",
            [
                (
                    "torch.where(largest > 0, largest / 127, 1.0)",
                    "(largest / 127).clamp(min=1e-5)",
                )
            ],
            7,
            "is its scale held too large?",
        ),
        Wrong(
            "the sums wrap around in eight bits",
            [("x.int() @ weight.int().T", "x @ weight.T")],
            6,
            "the sums do not fit into int8",
        ),
        Wrong(
            "the weight not transposed",
            [("weight.int().T", "weight.int()")],
            5,
            "transposed",
        ),
        Wrong(
            "the inputs' scale forgotten",
            [("sums * x_scale[:, None] * weight", "sums * weight")],
            7,
            "the scale of x is not used",
        ),
        Wrong(
            "divided by the scales",
            [
                (
                    "sums * x_scale[:, None] * weight_scale",
                    "sums / (x_scale[:, None] * weight_scale)",
                )
            ],
            7,
            "divided by the scales",
        ),
    ],
}
