"""The two networks: gated attention beside a mean, several members at once, and the per-class attention of the paper.

Both look at each cell by itself (`look`: features, and a score per class whose softmax over the cells of a bag is the
attention) and decide by sums over cells (`decide`), so that a bag of any size goes through in chunks. The first axis of
all tensors is the member of the ensemble; members share the cells and differ in weights and in the patients they learn
from. Attention: Ilse, Tomczak & Welling 2018, arXiv:1802.04712, equations 8 and 9.

Importing this module loads torch; import it inside functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionNetwork(nn.Module):
    """What both networks do with a batch of bags.

    Attributes
    ----------
    members : int
        Networks side by side.
    """

    members: int

    def look(self, x: Tensor, drop: float = 0.0, random: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Give features (M, cells, H) and scores (M, cells, K) of cells (cells, D)."""
        raise NotImplementedError

    def decide(self, pooled: Tensor, mean: Tensor) -> Tensor:
        """Give logits (M, B, K) of pooled features (M, B, K, H) and mean ones (M, B, H)."""
        raise NotImplementedError

    def forward(self, x: Tensor, there: Tensor, drop: float = 0.0, random: torch.Generator | None = None) -> Tensor:
        """Give the logits of a batch.

        Parameters
        ----------
        x : Tensor
            (B, n, D) float32, filled up with anything.
        there : Tensor
            (B, n) bool, which rows are cells.
        drop : float
            Share of features left out.
        random : torch.Generator, optional
            Of the features that are left out.

        Returns
        -------
        Tensor
            (M, B, K).
        """
        features, scores = self.look(x.flatten(0, 1), drop, random)
        features = features.unflatten(1, there.shape)
        scores = scores.unflatten(1, there.shape).masked_fill(~there[None, :, :, None], -torch.inf)
        pooled = scores.softmax(dim=2).transpose(2, 3) @ features
        share = (there / there.sum(dim=1, keepdim=True))[None, :, None, :]
        return self.decide(pooled, (share @ features).squeeze(2))


class GatedNetwork(AttentionNetwork):
    """Gated attention, one map a class, and the mean of the same features.

    Parameters
    ----------
    members, dim, classes : int
        Networks, numbers of an embedding, classes.
    hidden, attention : int
        Features of a cell, and units of the attention.
    random : torch.Generator
        Of the first weights.
    """

    def __init__(
        self, members: int, dim: int, classes: int, hidden: int, attention: int, random: torch.Generator
    ) -> None:
        super().__init__()

        def weights(*shape: int, into: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=random) * into**-0.5)

        self.members = members
        self.embed = weights(members, dim, hidden, into=dim)
        self.embed_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.attend = weights(members, hidden, attention, into=hidden)
        self.gate = weights(members, hidden, attention, into=hidden)
        self.score = weights(members, attention, classes, into=attention)
        self.by_attention = weights(members, classes, hidden, into=hidden)
        self.by_mean = weights(members, classes, hidden, into=hidden)
        self.bias = nn.Parameter(torch.zeros(members, 1, classes))

    def look(self, x: Tensor, drop: float = 0.0, random: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Give features (M, cells, H) and scores (M, cells, K) of cells (cells, D)."""
        wide = x @ self.embed.transpose(0, 1).flatten(1)  # one product for all members
        features = F.relu(wide.unflatten(1, (self.members, -1)).transpose(0, 1) + self.embed_bias)
        if drop:
            kept = torch.rand(features.shape, generator=random, device=features.device) >= drop
            features = features * kept / (1 - drop)
        return features, (torch.tanh(features @ self.attend) * torch.sigmoid(features @ self.gate)) @ self.score

    def decide(self, pooled: Tensor, mean: Tensor) -> Tensor:
        """Give logits (M, B, K) of pooled features (M, B, K, H) and mean ones (M, B, H)."""
        return (pooled * self.by_attention[:, None]).sum(-1) + mean @ self.by_mean.transpose(1, 2) + self.bias


class PaperNetwork(AttentionNetwork):
    """Attention of the DinoBloom evaluation: D to 128, tanh, 128 to K; per class D to 64, ReLU, 64 to 1.

    Source: marrlab/DinoBloom, ``dinov2/eval/miccai/wbc_mil.py`` at 3bfbcf4 (Koch et al. 2024, arXiv:2404.05022). One
    member; embeddings as they are.

    Parameters
    ----------
    dim, classes : int
        Numbers of an embedding, classes.
    random : torch.Generator
        Of the first weights, uniform as torch's linear layers have them.
    """

    def __init__(self, dim: int, classes: int, random: torch.Generator) -> None:
        super().__init__()

        def uniform(*shape: int, into: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(*shape, generator=random) * 2 - 1) * into**-0.5)

        self.members = 1
        self.attend, self.attend_bias = uniform(dim, 128, into=dim), uniform(128, into=dim)
        self.score, self.score_bias = uniform(128, classes, into=128), uniform(classes, into=128)
        self.first, self.first_bias = uniform(classes, dim, 64, into=dim), uniform(classes, 64, into=dim)
        self.last, self.last_bias = uniform(classes, 64, into=64), uniform(classes, into=64)

    def look(self, x: Tensor, drop: float = 0.0, random: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Give the embeddings (1, cells, D) and scores (1, cells, K) of cells (cells, D)."""
        return x[None], (torch.tanh(x @ self.attend + self.attend_bias) @ self.score + self.score_bias)[None]

    def decide(self, pooled: Tensor, mean: Tensor) -> Tensor:
        """Give logits (1, B, K) of pooled embeddings (1, B, K, D); the mean is not asked."""
        hidden = F.relu(torch.einsum("mbkd,kdh->mbkh", pooled, self.first) + self.first_bias)
        return (hidden * self.last).sum(-1) + self.last_bias


@torch.no_grad()
def run_bag(network: AttentionNetwork, x: Any, chunk: int) -> tuple[Tensor, Tensor]:
    """Logits and scores of one bag, in chunks of cells.

    Parameters
    ----------
    network : AttentionNetwork
        What is asked.
    x : (n, D) array of float32
        The bag; stays where it is, chunks are moved to the network's device.
    chunk : int
        Cells that are looked at at once.

    Returns
    -------
    logits : Tensor
        (M, K), on the CPU.
    scores : Tensor
        (M, n, K), on the CPU.
    """
    device = next(network.parameters()).device
    top, scores = torch.full((), -torch.inf, device=device), []
    weight = pooled = total = torch.zeros((), device=device)
    for start in range(0, len(x), chunk):
        features, found = network.look(torch.from_numpy(x[start : start + chunk]).to(device))
        scores.append(found.cpu())
        new = torch.maximum(top, found.amax(dim=1))
        grown, shrink = torch.exp(found - new[:, None]), torch.exp(top - new)
        weight = weight * shrink + grown.sum(dim=1)
        pooled = pooled * shrink[..., None] + grown.transpose(1, 2) @ features
        total, top = total + features.sum(dim=1), new
    logits = network.decide((pooled / weight[..., None])[:, None], (total / len(x))[:, None])[:, 0]
    return logits.cpu(), torch.cat(scores, dim=1)
