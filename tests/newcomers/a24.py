"""A compact translator: fused projections, one block class, scaled attention."""

import torch
import torch.nn as nn
import torch.nn.functional as F

PAD_ID = 0
BOS_ID = 1
EOS_ID = 2


class Block(nn.Module):
    def __init__(self, dim, n_heads, p, is_decoder):
        super().__init__()
        self.n_heads = n_heads
        self.is_decoder = is_decoder
        self.p = p
        self.norm_a = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        if is_decoder:
            self.norm_c = nn.LayerNorm(dim)
            self.q = nn.Linear(dim, dim)
            self.kv = nn.Linear(dim, 2 * dim)
            self.proj_c = nn.Linear(dim, dim)
        self.norm_f = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Dropout(p), nn.Linear(4 * dim, dim)
        )
        self.drop = nn.Dropout(p)

    def attend(self, q, k, v, mask):
        q, k, v = (
            t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in (q, k, v)
        )
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return y.transpose(1, 2).flatten(-2)

    def forward(self, x, mask, memory=None, memory_mask=None):
        y = self.attend(*self.qkv(self.norm_a(x)).chunk(3, dim=-1), mask)
        x = x + self.drop(self.proj(y))
        if self.is_decoder:
            k, v = self.kv(memory).chunk(2, dim=-1)
            y = self.attend(self.q(self.norm_c(x)), k, v, memory_mask)
            x = x + self.drop(self.proj_c(y))
        return x + self.drop(self.ffn(self.norm_f(x)))


class CompactTranslator(nn.Module):
    def __init__(self, vocab_size, dim=64, n_heads=4, n_blocks=2, p=0.1, context=160):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.pos = nn.Parameter(torch.zeros(2, context, dim))
        nn.init.trunc_normal_(self.pos, std=0.02)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.enc = nn.ModuleList(
            [Block(dim, n_heads, p, is_decoder=False) for _ in range(n_blocks)]
        )
        self.dec = nn.ModuleList(
            [Block(dim, n_heads, p, is_decoder=True) for _ in range(n_blocks)]
        )
        self.enc_norm = nn.LayerNorm(dim)
        self.dec_norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab_size)
        self.drop = nn.Dropout(p)

    def forward(self, src, tgt):
        s, t = src.shape[1], tgt.shape[1]
        memory_mask = (src != PAD_ID).view(-1, 1, 1, s)
        causal = torch.ones(t, t, dtype=torch.bool, device=tgt.device).tril()
        self_mask = causal & (tgt != PAD_ID).view(-1, 1, 1, t)
        memory = self.drop(self.tokens(src) + self.pos[0, :s])
        for block in self.enc:
            memory = block(memory, memory_mask)
        memory = self.enc_norm(memory)
        x = self.drop(self.tokens(tgt) + self.pos[1, :t])
        for block in self.dec:
            x = block(x, self_mask, memory, memory_mask)
        return self.head(self.dec_norm(x))


def build():
    vocab_size = 90
    model = CompactTranslator(vocab_size)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def train_step(batches):
        model.train()
        running = 0.0
        for src, tgt in batches:
            inp, gold = tgt[:, :-1], tgt[:, 1:]
            logits = model(src, inp)
            # cross_entropy wants the classes second
            logits = logits.reshape(gold.size(0), vocab_size, gold.size(1))
            loss = F.cross_entropy(logits, gold, ignore_index=PAD_ID)
            loss = loss / len(batches)
            loss.backward()
            running += loss.item()
        opt.step()
        opt.zero_grad()
        return running

    @torch.no_grad()
    def greedy(src, max_len=40):
        model.eval()
        out = torch.full((src.size(0), 1), BOS_ID, device=src.device)
        alive = torch.ones(src.size(0), 1, dtype=torch.bool, device=src.device)
        for _ in range(max_len):
            nxt = model(src, out)[:, -1:].argmax(-1)
            out = torch.cat([out, nxt * alive], dim=1)
            alive &= nxt != EOS_ID
            if not alive.any():
                break
        return out

    return {
        "model": model,
        "vocab_size": vocab_size,
        "train_step": train_step,
        "greedy": greedy,
    }
