"""Wrong answers to problem set 1, the points they deserve, and what must be said."""

from tools.wrong_answers import Wrong

WRONG = {
    "masks": [
        Wrong(
            "padding mask upside down: `==` for `!=`",
            [("ids != PAD", "ids == PAD")],
            2,
            "upside down: True should mean may look",
        ),
        Wrong(
            "every special token hidden, not only padding",
            [("ids != PAD", "ids > 3")],
            2,
            "BOS, EOS and UNK are hidden, too",
        ),
        Wrong(
            "padding on the axis of the queries",
            [("[:, None, None, :]", "[:, None, :, None]")],
            2,
            "the mask hides queries: padding must be on the last axis",
        ),
        Wrong(
            "padding mask without the two axes",
            [("[:, None, None, :]", "")],
            2,
            "the axes for heads and queries are missing",
        ),
        Wrong(
            "causal mask off by one: not even itself",
            [(".tril()", ".tril(-1)")],
            2,
            "off by one: a position may look at itself, too",
        ),
        Wrong(
            "causal mask off by one: the next one as well",
            [(".tril()", ".tril(1)")],
            2,
            "off by one: it sees the next position",
        ),
        Wrong(
            "`triu` for `tril`",
            [(".tril()", ".triu()")],
            2,
            "reversed: it sees the future, and not its past",
        ),
        Wrong(
            "a causal mask of floats",
            [("dtype=torch.bool", "dtype=torch.float")],
            2,
            "\"bitwise_and_cpu\" not implemented for 'Float'",
        ),
        Wrong(
            "`|` for `&` in the decoder's mask",
            [("padding_mask(ids) &", "padding_mask(ids) |")],
            4,
            "BOTH must allow it, so &",
        ),
        Wrong(
            "padded queries hidden instead of padded keys",
            [("padding_mask(ids) &", "padding_mask(ids).mT &")],
            4,
            "that hides padded queries: hide padded keys alone",
        ),
        Wrong(
            "the decoder's mask without the future",
            [
                (
                    "padding_mask(ids) & causal_mask(ids.size(1))",
                    "padding_mask(ids).expand(-1, 1, ids.size(1), -1)",
                )
            ],
            4,
            "it sees the future: where is causal?",
        ),
        Wrong(
            "the visible test's answer, copied",
            [
                (
                    "(ids != PAD)",
                    "torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1] * 5]).bool()",
                )
            ],
            2,
            "the shape should be (2, 1, 1, 64), not (3, 1, 1, 5)",
        ),
        Wrong(
            "a loop that never ends",
            [
                (
                    "return (ids != PAD)",
                    "while True:\n        ids\n    return (ids != PAD)",
                )
            ],
            2,
            "does your loop end?",
        ),
    ],
    "attention": [
        Wrong(
            "scale forgotten",
            [(" / math.sqrt(query.size(-1))", "")],
            5,
            "did you forget to divide by the root of d_k?",
        ),
        Wrong(
            "divided by d_k, not by its root",
            [("math.sqrt(query.size(-1))", "query.size(-1)")],
            5,
            "did you divide by d_k instead of its root?",
        ),
        Wrong(
            "scaled by the number of keys",
            [("math.sqrt(query.size(-1))", "math.sqrt(key.size(-2))")],
            2,
            "divided by the root of the number of keys, not of d_k",
        ),
        Wrong(
            "softmax over the queries",
            [(".softmax(-1)", ".softmax(-2)")],
            2,
            "is your softmax over the keys, the last axis?",
        ),
        Wrong(
            "a sigmoid for the softmax",
            [(".softmax(-1)", ".sigmoid()")],
            5,
            "that is a sigmoid: the weights of a query add up to 1",
        ),
        Wrong(
            "mask upside down",
            [("~mask", "mask")],
            0,
            "all may look, yet nobody does: is your mask upside down?",
        ),
        Wrong(
            "the result of `masked_fill` is thrown away",
            "def attention(query, key, value, mask):\n"
            "    scores = query @ key.mT / math.sqrt(query.size(-1))\n"
            "    scores.masked_fill(~mask, -math.inf)\n"
            "    return scores.softmax(-1) @ value\n",
            3,
            "the mask changes nothing: is the result of masked_fill used?",
        ),
        Wrong(
            "the mean of the visible values",
            "def attention(query, key, value, mask):\n"
            "    shares = mask / mask.sum(-1, keepdim=True).clamp(min=1)\n"
            "    return shares @ value\n",
            2,
            "every query gets the same",
        ),
        Wrong(
            "masked after the softmax only",
            [
                (
                    "scores.masked_fill(~mask, -math.inf).softmax(-1)",
                    "scores.softmax(-1)",
                )
            ],
            5,
            "the weights left no longer add up to 1",
        ),
        Wrong(
            "masked scores are 0, not -inf",
            "def attention(query, key, value, mask):\n"
            "    scores = query @ key.mT / math.sqrt(query.size(-1))\n"
            "    return scores.masked_fill(~mask, 0).softmax(-1) @ value\n",
            3,
            "a score of 0 is a weight of exp(0) = 1",
        ),
        Wrong(
            "NaN for a query that may look nowhere",
            [("weights.masked_fill(~mask, 0.0)", "weights")],
            6,
            "NaN for a query that may look nowhere",
        ),
        Wrong(
            "-1e9 for -inf: nowhere becomes everywhere",
            [
                ("-math.inf", "-1e9"),
                ("weights.masked_fill(~mask, 0.0)", "weights"),
            ],
            6,
            "a query that may look nowhere should get zeros",
        ),
        Wrong(
            "no transpose of the keys",
            [("key.mT", "key")],
            0,
            "is the key transposed, query @ key.mT?",
        ),
        Wrong(
            "output and weights returned",
            [("0.0) @ value", "0.0) @ value, weights")],
            0,
            "return the output only, not the weights",
        ),
        Wrong(
            "the mask transposed, wherever it is square",
            "def attention(query, key, value, mask):\n"
            "    scores = query @ key.mT / math.sqrt(query.size(-1))\n"
            "    if mask.size(0) == mask.size(1):\n"
            "        mask = mask.mT\n"
            "    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)\n"
            "    return weights.masked_fill(~mask, 0.0) @ value\n",
            5,
            "the mask is transposed: its rows are the queries",
        ),
        Wrong(
            "writes into the caller's query",
            [
                (
                    "query @ key.mT / math.sqrt(query.size(-1))",
                    "query.div_(math.sqrt(query.size(-1))) @ key.mT",
                )
            ],
            5,
            "changes query, which is the caller's",
        ),
        Wrong(
            "gradients off for good",
            [("    scores =", "    torch.set_grad_enabled(False)\n    scores =")],
            5,
            "gradients are switched off for good",
        ),
        Wrong(
            "detached on the way",
            [(" @ value", ".detach() @ value")],
            5,
            "no gradient for query comes through",
        ),
        Wrong(
            "the visible test's d_k, hard-coded",
            [("query.size(-1)", "16")],
            5,
            "with 40 keys and d_k = 64",
        ),
    ],
    "heads": [
        Wrong(
            "`reshape` without a transpose",
            [
                (
                    "x.unflatten(-1, (n_heads, -1)).transpose(1, 2)",
                    "x.reshape(x.size(0), n_heads, x.size(1), -1)",
                )
            ],
            3,
            "view without a transpose",
        ),
        Wrong(
            "the heads are never moved",
            [("(n_heads, -1)).transpose(1, 2)", "(n_heads, -1))")],
            3,
            "the heads are cut, but not moved",
        ),
        Wrong(
            "size before heads: each head gets every third number",
            [
                (
                    "(n_heads, -1)).transpose(1, 2)",
                    "(-1, n_heads)).permute(0, 3, 1, 2)",
                )
            ],
            3,
            "a head is a slice of neighbors",
        ),
        Wrong(
            "positions and size swapped",
            [("(n_heads, -1)).transpose(1, 2)", "(n_heads, -1)).permute(0, 2, 3, 1)")],
            3,
            "width and positions are swapped",
        ),
        Wrong(
            "merged without a transpose",
            [
                (
                    "heads.transpose(1, 2).flatten(-2)",
                    "heads.reshape(heads.size(0), heads.size(2), -1)",
                )
            ],
            3,
            "no transpose: positions before heads, then flatten",
        ),
        Wrong(
            "merged by `view`, which can't",
            [
                (
                    "transpose(1, 2).flatten(-2)",
                    "transpose(1, 2).view(heads.size(0), heads.size(2), -1)",
                )
            ],
            3,
            "RuntimeError: view size is not compatible",
        ),
        Wrong(
            "the heads averaged, not laid side by side",
            [("heads.transpose(1, 2).flatten(-2)", "heads.mean(1)")],
            3,
            "one head is left of all",
        ),
        Wrong(
            "the heads interleaved",
            [("heads.transpose(1, 2)", "heads.permute(0, 2, 3, 1)")],
            3,
            "the heads are mixed number by number",
        ),
        Wrong(
            "the visible test's shape, hard-coded",
            [("x.unflatten(-1, (n_heads, -1))", "x.view(2, 5, 3, 7)")],
            3,
            "RuntimeError: shape '[2, 5, 3, 7]' is invalid",
        ),
    ],
    "positions": [
        Wrong(
            "cosine first",
            [("angle.sin(), angle.cos()", "angle.cos(), angle.sin()")],
            0,
            "sines in even columns, cosines in odd",
        ),
        Wrong(
            "sines in the left half, cosines in the right",
            [
                (
                    "torch.stack([angle.sin(), angle.cos()], -1).flatten(1)",
                    "torch.cat([angle.sin(), angle.cos()], 1)",
                )
            ],
            0,
            "these are halves: sine and cosine should alternate",
        ),
        Wrong(
            "positions counted from 1",
            [("torch.arange(length,", "torch.arange(1, length + 1,")],
            0,
            "the first position is 0, not 1",
        ),
        Wrong(
            "i for 2i in the exponent",
            [("column / d_model", "column / 2 / d_model")],
            0,
            "the exponent is 2i / d_model, not i",
        ),
        Wrong(
            "a base of 1,000",
            [("10_000", "1_000")],
            0,
            "the base is 10,000",
        ),
        Wrong(
            "multiplied instead of divided",
            [("position / 10_000", "position * 10_000")],
            0,
            "the frequencies shrink: divide, don't multiply",
        ),
        Wrong(
            "float32 angles",
            [(", dtype=torch.float64", "")],
            4,
            "are the angles float64?",
        ),
        Wrong(
            "transposed",
            [(".flatten(1).float()", ".flatten(1).float().T")],
            0,
            "did you transpose?",
        ),
        Wrong(
            "the exponent rounded down by `//`",
            [("column / d_model", "column // d_model")],
            0,
            "is there a // in the exponent?",
        ),
        Wrong(
            "the visible test's width, hard-coded",
            [("column / d_model", "column / 6")],
            0,
            "Is something hard-coded?",
        ),
        Wrong(
            "a list of lists, not a tensor",
            [(".flatten(1).float()", ".flatten(1).tolist()")],
            0,
            "return a tensor, not a list",
        ),
    ],
    "norm": [
        Wrong(
            "Bessel's correction",
            [("correction=0", "correction=1")],
            2,
            "that is Bessel's correction",
        ),
        Wrong(
            "eps outside the root",
            [("torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)")],
            5,
            "is your eps (1e-5) inside the root?",
        ),
        Wrong(
            "over the batch",
            [("mean(-1", "mean(0"), ("var(-1", "var(0")],
            2,
            "that is over the batch: take the last axis",
        ),
        Wrong(
            "one mean and variance for all numbers",
            [
                ("x.mean(-1, keepdim=True)", "x.mean()"),
                ("x.var(-1, correction=0, keepdim=True)", "x.var(correction=0)"),
            ],
            2,
            "one mean for all numbers: take the last axis",
        ),
        Wrong(
            "divided by the variance",
            [("torch.sqrt(variance + eps)", "(variance + eps)")],
            2,
            "you divide by the variance: take its root",
        ),
        Wrong(
            "no `keepdim`",
            [(", keepdim=True", "")],
            0,
            "is it kept (keepdim)?",
        ),
        Wrong(
            "gain forgotten",
            [("gain * (x - mean)", "(x - mean)")],
            6,
            "the gain is forgotten",
        ),
        Wrong(
            "the gain scales the bias, too",
            [
                (
                    "gain * (x - mean) / torch.sqrt(variance + eps) + bias",
                    "gain * ((x - mean) / torch.sqrt(variance + eps) + bias)",
                )
            ],
            6,
            "the bias comes after the gain",
        ),
        Wrong(
            "no eps",
            [("variance + eps", "variance")],
            5,
            "is there an eps?",
        ),
        Wrong(
            "eps written as a number, its argument unused",
            [("variance + eps", "variance + 1e-5")],
            5,
            "eps is an argument",
        ),
        Wrong(
            "the mean not subtracted",
            [("(x - mean)", "x")],
            2,
            "the mean is not subtracted",
        ),
        Wrong(
            "RMS norm",
            [
                ("x.var(-1, correction=0, keepdim=True)", "(x * x).mean(-1, True)"),
                ("(x - mean)", "x"),
            ],
            2,
            "that is RMS norm",
        ),
        Wrong(
            "writes into the caller's x",
            [("return gain * (x - mean)", "x -= mean\n    return gain * x")],
            5,
            "changes x, which is the caller's",
        ),
    ],
    "bug_leak": [
        Wrong(
            "repaired with -1e9: nowhere becomes everywhere",
            [("-math.inf", "-1e9"), ("weights.masked_fill(~mask, 0.0)", "weights")],
            4,
            "a query that may look nowhere should get zeros",
        ),
        Wrong(
            "repaired with 1e-9: the sign was not the bug",
            [("-math.inf", "1e-9"), ("weights.masked_fill(~mask, 0.0)", "weights")],
            4,
            "a masked key still counts",
        ),
        Wrong(
            "the test changes values only",
            [("changed_key[:, last:] +=", "_ =")],
            6,
            "Change keys, not values alone",
        ),
        Wrong(
            "the test tolerates small leaks",
            [
                ("100 * torch.randn", "torch.randn"),
                (
                    "not torch.equal(before[:, :last], after[:, :last])",
                    "not torch.allclose(before[:, :last], after[:, :last], atol=0.01)",
                ),
            ],
            6,
            "compare exactly, change what is hidden by much",
        ),
        Wrong(
            "the test compares rows that may see the change",
            [("before[:, :last], after[:, :last]", "before, after")],
            4,
            "it calls every attention guilty",
        ),
        Wrong(
            "the test says True to all",
            [("if not torch.equal(before[:, :last], after[:, :last])", "if True")],
            4,
            "it calls every attention guilty",
        ),
        Wrong(
            "the test says False to all",
            [("return True", "return False")],
            4,
            "misses an attention that never uses its mask",
        ),
        Wrong(
            "the last return forgotten",
            [("    return False\n", "    pass\n")],
            4,
            "it returns nothing",
        ),
        Wrong(
            "the test knows the one culprit by name",
            [
                (
                    "g = torch.Generator().manual_seed(0)",
                    "return attention is careless_attention",
                )
            ],
            4,
            "misses an attention that never uses its mask",
        ),
    ],
    "experiment_root": [
        Wrong(
            "`scaled` ignored",
            [("if scaled", "if False")],
            0,
            "`scaled` is ignored, or reversed",
        ),
        Wrong(
            "divided by d_k",
            [("math.sqrt(query.size(-1))", "query.size(-1)")],
            0,
            "you divided by d_k, not by its root",
        ),
        Wrong(
            "softmax over the queries",
            [("softmax(-1)", "softmax(0)")],
            2,
            "is your softmax over the keys, the last axis?",
        ),
        Wrong(
            "the variance for the standard deviation",
            [("scores.std()", "scores.var()")],
            4,
            "that is the variance: take its root",
        ),
        Wrong(
            "the largest weight of all queries",
            [("largest.mean()", "largest.max()")],
            4,
            "take it for each query, then the mean",
        ),
        Wrong(
            "the length of the whole gradient",
            [("norm(dim=-1).mean()", "norm()")],
            4,
            "not the mean over the queries",
        ),
        Wrong(
            "mean before backward, and once more after it",
            [("largest.sum()", "largest.mean()")],
            4,
            "the mean was taken before backward, and again",
        ),
        Wrong(
            "the gradient of the sum of all weights",
            [("largest.sum().backward()", "scores.softmax(-1).sum().backward()")],
            4,
            "the weights of a query always add up to 1",
        ),
        Wrong(
            "one number left out",
            [('found["gradient"] = scores', "scores")],
            4,
            "not done yet: 'gradient' is empty",
        ),
        Wrong(
            "numbers copied from the visible test",
            [("scores.std().item()", "1.0108 if scaled else 7.0035")],
            4,
            "that is 'std' with scaled",
        ),
    ],
}
