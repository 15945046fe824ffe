"""Wrong answers to problem set 2, the points they deserve, and what must be said."""

from tools.wrong_answers import Wrong

WRONG = {
    "smoothing": [
        Wrong(
            "padding gets a share",
            [("    targets[:, PAD] = 0.0\n", "")],
            4,
            "padding gets a share",
        ),
        Wrong(
            "divided by all of the vocabulary, padding too",
            [("smoothing / (vocab_size - 1)", "smoothing / vocab_size")],
            0,
            "the rows don't add up to 1",
        ),
        Wrong(
            "the label has no share of the smoothing",
            [
                ("vocab_size - 1", "vocab_size - 2"),
                ("labels] += 1 - smoothing", "labels] = 1 - smoothing"),
            ],
            0,
            "the label has a share of the smoothing, too",
        ),
        Wrong(
            "smoothing and 1 - smoothing swapped",
            [
                ("smoothing / (vocab_size - 1)", "(1 - smoothing) / (vocab_size - 1)"),
                ("+= 1 - smoothing", "+= smoothing"),
            ],
            0,
            "swapped: 1 - smoothing is the label's",
        ),
        Wrong(
            "padded labels keep a target",
            [("    targets[labels == PAD] = 0.0\n", "")],
            4,
            "a padded position should be a row of zeros",
        ),
        Wrong(
            "padding counted in the mean",
            [("(labels != PAD).sum()", "len(labels)")],
            6,
            "padding is counted",
        ),
        Wrong(
            "the sum, not the mean",
            [(" / (labels != PAD).sum()", "")],
            4,
            "that is the sum",
        ),
        Wrong(
            "padding takes part in the softmax",
            [
                (
                    "logits[:, PAD + 1 :].log_softmax(-1)",
                    "logits.log_softmax(-1)[:, PAD + 1 :]",
                )
            ],
            4,
            "padding takes part in the softmax",
        ),
        Wrong(
            "0 times the logarithm of 0",
            [
                (
                    "logits[:, PAD + 1 :].log",
                    "logits.index_fill(1, torch.tensor(PAD), -math.inf).log",
                ),
                ("targets[:, PAD + 1 :]", "targets"),
            ],
            4,
            "does padding's 0 meet an infinite logarithm?",
        ),
        Wrong(
            "the minus forgotten",
            [("return -(", "return (")],
            4,
            "the loss is MINUS the logarithm",
        ),
        Wrong(
            "PyTorch's own smoothing, which knows no padding",
            [
                ("-(targets[:, PAD + 1 :] * log_probs).sum()", "cross_entropy("),
                (
                    " / (labels != PAD).sum()",
                    "logits, labels, label_smoothing=smoothing, ignore_index=PAD)",
                ),
                ("cross_entropy(", "nn.functional.cross_entropy("),
            ],
            4,
            "padding has a share of the smoothing, and a probability",
        ),
    ],
    "schedule": [
        Wrong(
            "max for min",
            [("min(", "max("), ("max(step, 1)", "step or 1")],
            0,
            "max instead of min",
        ),
        Wrong(
            "d_model forgotten",
            [("d_model**-0.5 * ", "")],
            0,
            "where is d_model ** -0.5?",
        ),
        Wrong(
            "the root of d_model multiplied",
            [("d_model**-0.5", "d_model**0.5")],
            0,
            "wider models learn slower",
        ),
        Wrong(
            "divided by d_model",
            [("d_model**-0.5", "d_model**-1")],
            0,
            "divided by d_model: divide by its root",
        ),
        Wrong(
            "warmup to the power of -0.5",
            [("warmup**-1.5", "warmup**-0.5")],
            2,
            "the rise is too steep",
        ),
        Wrong(
            "no warmup",
            [("min(step**-0.5, step * warmup**-1.5)", "step**-0.5")],
            2,
            "there is no warmup",
        ),
        Wrong(
            "it never falls",
            [("min(step**-0.5, step * warmup**-1.5)", "step * warmup**-1.5")],
            2,
            "it rises for ever",
        ),
        Wrong(
            "falls with the step, not with its root",
            [("step**-0.5", "step**-1")],
            0,
            "it falls too fast",
        ),
        Wrong(
            "step 0 divides by zero",
            [("    step = max(step, 1)\n", "")],
            4,
            "step 0 divides by zero",
        ),
        Wrong(
            "off by one: counted from 0",
            [("max(step, 1)", "step + 1")],
            0,
            "one step ahead",
        ),
        Wrong(
            "the visible test's numbers, hard-coded",
            [("warmup**-1.5", "4000**-1.5"), ("d_model**-0.5", "512**-0.5")],
            0,
            "Is something hard-coded?",
        ),
    ],
    "train_step": [
        Wrong(
            "no zero_grad",
            [("    optimizer.zero_grad()\n", "")],
            7,
            "old gradients are added: call zero_grad first",
        ),
        Wrong(
            "zero_grad in the loop",
            [
                (
                    "        loss = model(piece)",
                    "        optimizer.zero_grad()\n        loss = model(piece)",
                )
            ],
            6,
            "only the last piece is left",
        ),
        Wrong(
            "nothing divided",
            [("(loss / n_tokens).backward()", "loss.backward()")],
            6,
            "nothing is divided",
        ),
        Wrong(
            "each piece divided by its own labels",
            [("(loss / n_tokens)", "(loss / piece.n_tokens)")],
            6,
            "each piece is divided by its own labels",
        ),
        Wrong(
            "a mean of means",
            [("(loss / n_tokens)", "(loss / piece.n_tokens / len(pieces))")],
            6,
            "a mean of means",
        ),
        Wrong(
            "divided by the number of pieces",
            [("(loss / n_tokens)", "(loss / len(pieces))")],
            6,
            "divided by the number of pieces, not of labels",
        ),
        Wrong(
            "a step after each piece",
            [
                (
                    "        total += loss.item()",
                    "        total += loss.item()\n        optimizer.step()",
                )
            ],
            0,
            "one update is wanted",
        ),
        Wrong(
            "clipped after each piece",
            [
                ("    nn.utils.clip_grad_norm_(model.parameters(), clip)\n", ""),
                (
                    "        total += loss.item()",
                    "        total += loss.item()\n"
                    "        nn.utils.clip_grad_norm_(model.parameters(), clip)",
                ),
            ],
            7,
            "clip once, after the last",
        ),
        Wrong(
            "clipped after the step",
            [
                ("    nn.utils.clip_grad_norm_(model.parameters(), clip)\n", ""),
                (
                    "    optimizer.step()\n",
                    "    optimizer.step()\n"
                    "    nn.utils.clip_grad_norm_(model.parameters(), clip)\n",
                ),
            ],
            7,
            "not clipped",
        ),
        Wrong(
            "each number clipped by itself",
            [("clip_grad_norm_", "clip_grad_value_")],
            7,
            "each number was clipped by itself",
        ),
        Wrong(
            "the rate set after the step",
            [
                ("    optimizer.step()\n", ""),
                (
                    "    for group in optimizer",
                    "    optimizer.step()\n    for group in optimizer",
                ),
            ],
            7,
            "set the rate BEFORE the step",
        ),
        Wrong(
            "the rate for the first group only",
            [("in optimizer.param_groups:", "in optimizer.param_groups[:1]:")],
            7,
            "set it in every group",
        ),
        Wrong(
            "zero_grad before the step",
            [
                (
                    "    optimizer.step()\n",
                    "    optimizer.zero_grad()\n    optimizer.step()\n",
                )
            ],
            0,
            "zero_grad comes before backward",
        ),
        Wrong(
            "the summed loss returned",
            [("return total / n_tokens", "return total")],
            6,
            "the loss returned is a sum",
        ),
        Wrong(
            "the last piece left out",
            [("for piece in pieces:\n", "for piece in pieces[:-1]:\n")],
            6,
            "the last piece is missing",
        ),
    ],
    "bug_validation": [
        Wrong("no eval()", [("    model.eval()\n", "")], 5, "call model.eval() before"),
        Wrong(
            "never back to training",
            [("    model.train(was_training)\n", "")],
            5,
            "the model stays in eval()",
        ),
        Wrong(
            "always left in training",
            [("model.train(was_training)", "model.train()")],
            5,
            "a model that came in eval() leaves in train()",
        ),
        Wrong(
            "`model.training = False` instead of `eval()`",
            [
                ("model.eval()", "model.training = False"),
                ("model.train(was_training)", "model.training = was_training"),
            ],
            5,
            "call model.eval() before",
        ),
        Wrong(
            "`model.training = True` instead of `train()`",
            [("model.train(was_training)", "model.training = was_training")],
            5,
            "but its dropout is not",
        ),
        Wrong(
            "still a mean of means",
            [
                ("model(batch).item()", "model(batch).item() / batch.n_tokens"),
                ("n_tokens += batch.n_tokens", "n_tokens += 1"),
            ],
            5,
            "a mean of means",
        ),
        Wrong(
            "divided by the number of batches",
            [("n_tokens += batch.n_tokens", "n_tokens += 1")],
            5,
            "divided by the number of batches, not of labels",
        ),
        Wrong(
            "the sum",
            [("return total / n_tokens", "return total")],
            5,
            "that is the sum",
        ),
        Wrong(
            "the perplexity",
            [("return total / n_tokens", "return math.exp(total / n_tokens)")],
            5,
            "that is the perplexity",
        ),
        Wrong(
            "the graphs are kept",
            [("torch.no_grad()", "torch.enable_grad()")],
            6,
            "use torch.no_grad()",
        ),
        Wrong(
            "a tensor comes back",
            [("model(batch).item()", "model(batch)")],
            6,
            ".item() frees it from its tensor",
        ),
        Wrong(
            "gradients off for good",
            [
                (
                    "    with torch.no_grad():",
                    "    torch.set_grad_enabled(False)\n    if True:",
                ),
            ],
            6,
            "gradients are switched off for good",
        ),
        Wrong(
            "the return inside the loop",
            [
                ("    model.train(was_training)\n    return total / n_tokens", ""),
                (
                    "n_tokens += batch.n_tokens\n",
                    "n_tokens += batch.n_tokens\n"
                    "            model.train(was_training)\n"
                    "            return total / n_tokens\n",
                ),
            ],
            2,
            "is the return inside the loop?",
        ),
        Wrong(
            "the careless one again",
            "validation_loss = careless_validation",
            0,
            "call model.eval() before",
        ),
    ],
    "experiment_rate": [
        Wrong(
            "the last loss alone",
            [("sum(train(rate, seed)[-10:]) / 10", "train(rate, seed)[-1]")],
            2,
            "the last loss alone is noisy",
        ),
        Wrong(
            "the first ten losses",
            [("[-10:]", "[:10]")],
            2,
            "these are the first ten losses",
        ),
        Wrong(
            "off by one: nine losses",
            [("[-10:]) / 10", "[-9:]) / 9")],
            2,
            "off by one: the last TEN losses",
        ),
        Wrong(
            "one seed",
            [("for seed in seeds", "for seed in [seeds[0], seeds[0]]")],
            2,
            "one seed is no evidence",
        ),
        Wrong(
            "the arguments of train swapped",
            [("train(rate, seed)", "train(seed, rate)")],
            2,
            "in the order (rate, seed)",
        ),
        Wrong(
            "divided by n, not by n - 1",
            [("(len(ends) - 1)", "len(ends)")],
            4,
            "a sample of",
        ),
        Wrong(
            "the variance",
            [("math.sqrt(variance)", "variance")],
            4,
            "that is the variance: take its root",
        ),
        Wrong(
            "the error of the mean",
            [("math.sqrt(variance)", "math.sqrt(variance / len(ends))")],
            4,
            "that is the error of the mean",
        ),
        Wrong(
            "the best seed for the mean",
            [("= (mean, math", "= (min(ends), math")],
            4,
            "the best seed alone: that is luck",
        ),
        Wrong(
            "the highest loss wins",
            [("min(sound", "max(sound")],
            4,
            "that is the HIGHEST loss",
        ),
        Wrong(
            "NaN wins",
            [(" if not math.isnan(mean)", "")],
            4,
            "a run that broke (NaN) won",
        ),
        Wrong(
            "the loss, not its rate",
            [("min(sound, key=sound.get)", "min(sound.values())")],
            4,
            "that is the loss: return its rate",
        ),
    ],
}
