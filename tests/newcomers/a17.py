"""Seq2Seq Transformer with learned positions and the masks made from pad indices."""

import torch
import torch.nn as nn


class Encoder(nn.Module):
    def __init__(self, input_dim, hid_dim, n_layers, n_heads, pf_dim, dropout):
        super().__init__()
        self.tok_embedding = nn.Embedding(input_dim, hid_dim)
        self.pos_embedding = nn.Embedding(100, hid_dim)
        self.layers = nn.ModuleList()
        for _ in range(n_layers):
            self.layers.append(EncoderLayer(hid_dim, n_heads, pf_dim, dropout))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("scale", torch.sqrt(torch.tensor([float(hid_dim)])))

    def forward(self, src, src_mask):
        # src: [batch size, src len], src_mask: [batch size, 1, 1, src len]
        batch_size, src_len = src.shape
        pos = torch.arange(0, src_len, device=src.device)
        pos = pos.unsqueeze(0).repeat(batch_size, 1)
        src = self.tok_embedding(src) * self.scale + self.pos_embedding(pos)
        src = self.dropout(src)
        for layer in self.layers:
            src = layer(src, src_mask)
        return src


class EncoderLayer(nn.Module):
    def __init__(self, hid_dim, n_heads, pf_dim, dropout):
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(hid_dim)
        self.layer_norm_2 = nn.LayerNorm(hid_dim)
        self.self_attention = MultiHead(hid_dim, n_heads, dropout)
        self.feed_forward = FeedForward(hid_dim, pf_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, src_mask):
        attended = self.self_attention(src, src, src, src_mask)
        src = self.layer_norm_1(src + self.dropout(attended))
        return self.layer_norm_2(src + self.dropout(self.feed_forward(src)))


class MultiHead(nn.Module):
    def __init__(self, hid_dim, n_heads, dropout):
        super().__init__()
        self.hid_dim = hid_dim
        self.n_heads = n_heads
        self.head_dim = hid_dim // n_heads
        self.fc_q = nn.Linear(hid_dim, hid_dim)
        self.fc_k = nn.Linear(hid_dim, hid_dim)
        self.fc_v = nn.Linear(hid_dim, hid_dim)
        self.fc_o = nn.Linear(hid_dim, hid_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query, key, value, mask):
        batch_size = query.shape[0]
        Q = self.fc_q(query).view(batch_size, -1, self.n_heads, self.head_dim)
        K = self.fc_k(key).view(batch_size, -1, self.n_heads, self.head_dim)
        V = self.fc_v(value).view(batch_size, -1, self.n_heads, self.head_dim)
        # energy: [batch size, n heads, query len, key len]
        energy = Q.permute(0, 2, 1, 3) @ K.permute(0, 2, 3, 1)
        energy = energy / self.head_dim**0.5
        energy = energy.masked_fill(mask == 0, -1e10)
        attention = self.dropout(torch.softmax(energy, dim=-1))
        x = attention @ V.permute(0, 2, 1, 3)
        x = x.permute(0, 2, 1, 3).contiguous()
        return self.fc_o(x.view(batch_size, -1, self.hid_dim))


class FeedForward(nn.Module):
    def __init__(self, hid_dim, pf_dim, dropout):
        super().__init__()
        self.fc_1 = nn.Linear(hid_dim, pf_dim)
        self.fc_2 = nn.Linear(pf_dim, hid_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.dropout(torch.relu(self.fc_1(x)))
        return self.fc_2(x)


class Decoder(nn.Module):
    def __init__(self, output_dim, hid_dim, n_layers, n_heads, pf_dim, dropout):
        super().__init__()
        self.tok_embedding = nn.Embedding(output_dim, hid_dim)
        self.pos_embedding = nn.Embedding(100, hid_dim)
        self.layers = nn.ModuleList()
        for _ in range(n_layers):
            self.layers.append(DecoderLayer(hid_dim, n_heads, pf_dim, dropout))
        self.fc_out = nn.Linear(hid_dim, output_dim)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("scale", torch.sqrt(torch.tensor([float(hid_dim)])))

    def forward(self, trg, enc_src, trg_mask, src_mask):
        batch_size, trg_len = trg.shape
        pos = torch.arange(0, trg_len, device=trg.device)
        pos = pos.unsqueeze(0).repeat(batch_size, 1)
        trg = self.tok_embedding(trg) * self.scale + self.pos_embedding(pos)
        trg = self.dropout(trg)
        for layer in self.layers:
            trg = layer(trg, enc_src, trg_mask, src_mask)
        return self.fc_out(trg)


class DecoderLayer(nn.Module):
    def __init__(self, hid_dim, n_heads, pf_dim, dropout):
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(hid_dim)
        self.layer_norm_2 = nn.LayerNorm(hid_dim)
        self.layer_norm_3 = nn.LayerNorm(hid_dim)
        self.self_attention = MultiHead(hid_dim, n_heads, dropout)
        self.encoder_attention = MultiHead(hid_dim, n_heads, dropout)
        self.feed_forward = FeedForward(hid_dim, pf_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, trg, enc_src, trg_mask, src_mask):
        attended = self.self_attention(trg, trg, trg, trg_mask)
        trg = self.layer_norm_1(trg + self.dropout(attended))
        attended = self.encoder_attention(trg, enc_src, enc_src, src_mask)
        trg = self.layer_norm_2(trg + self.dropout(attended))
        return self.layer_norm_3(trg + self.dropout(self.feed_forward(trg)))


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder, src_pad_idx, trg_pad_idx):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.src_pad_idx = src_pad_idx
        self.trg_pad_idx = trg_pad_idx

    def forward(self, src, trg):
        src_mask = (src != self.src_pad_idx)[:, None, None, :]
        trg_pad_mask = (trg != self.trg_pad_idx)[:, None, None, :]
        trg_len = trg.shape[1]
        trg_sub_mask = torch.ones((trg_len, trg_len), device=trg.device).bool()
        trg_mask = trg_pad_mask & torch.tril(trg_sub_mask)
        enc_src = self.encoder(src, src_mask)
        return self.decoder(trg, enc_src, trg_mask, src_mask)


def build():
    enc = Encoder(190, 64, 3, 4, 128, 0.1)
    dec = Decoder(190, 64, 3, 4, 128, 0.1)
    model = Seq2Seq(enc, dec, src_pad_idx=0, trg_pad_idx=0)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.xavier_uniform_(p)
    return {"model": model, "vocab_size": 190}
