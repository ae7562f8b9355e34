"""The loss is one number whatever it is cut into; noise is drawn anew and the same."""

from __future__ import annotations

import loss
import pytest
import torch
from loss import Noise, token_loss_sum
from setup import Place

ALONE = Place(0, 1, counts=True)


def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    values, labels = torch.randn(2, 20, 50), torch.randint(0, 50, (2, 20))
    labels[:, :5] = -100
    found = []
    for chunk in (1024, 7):
        monkeypatch.setattr(loss, "CHUNK", chunk)
        logits = values.clone().requires_grad_()
        total = token_loss_sum(logits, labels, ALONE, 50)
        total.backward()
        found.append((total.item(), logits.grad))
    shifted = torch.nn.functional.cross_entropy(values[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    assert found[0][0] == pytest.approx(shifted.item(), rel=1e-6)
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1])


def test_noise_is_the_same_for_a_step_and_another_for_the_next() -> None:
    embedding = torch.nn.Embedding(10, 16)
    model = torch.nn.ModuleDict({"embed_tokens": embedding})
    ids = torch.zeros(2, 25, dtype=torch.long)
    clean = embedding(ids)

    def drawn(data_rank: int, step: int) -> torch.Tensor:
        noise = Noise(0.1, 42, data_rank)
        noise.begin(step)
        return noise(embedding, None, clean) - clean

    bound = 0.1 / (25 * 16) ** 0.5
    assert 0.9 * bound < drawn(0, 3).abs().max() <= bound * 1.001
    assert torch.equal(drawn(0, 3), drawn(0, 3))
    assert not torch.equal(drawn(0, 3), drawn(0, 4)) and not torch.equal(drawn(0, 3), drawn(1, 3))
    Noise(0.1, 42, 0).attach(model)
    assert not torch.equal(embedding(ids), clean)
    assert torch.equal(embedding.eval()(ids), clean)
