"""The four special tokens: their ids, the same in every vocabulary, and their names."""

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")  # in the order of their ids
