import pytest
import torch

from custom.engines import parameter_groups, step_decay_then_final
from custom.networks import MCPMedSAM


def rates(epochs, *first, iterations_per_epoch=1, **options):
    """The learning rates of all iterations, one list a parameter group."""
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in first])
    scheduler = step_decay_then_final(
        optimizer, epochs=epochs, iterations_per_epoch=iterations_per_epoch, final_lr=5e-5, **options
    )
    found = []
    for _ in range(epochs * iterations_per_epoch):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [list(group) for group in zip(*found, strict=True)]


def test_paper():
    expected = [2e-4] * 5 + [1.8e-4] * 5 + [1.62e-4] * 5 + [1.458e-4] * 5 + [1.3122e-4] * 4 + [5e-5]
    assert rates(25, 2e-4) == [pytest.approx(expected)]


def test_one_epoch_keeps_the_first_rate():
    assert rates(1, 2e-4) == [[2e-4]]


def test_groups_keep_their_ratio():
    a, b = rates(4, 2e-4, 2e-5, factor=0.5, every=2)
    assert a == pytest.approx([2e-4, 2e-4, 1e-4, 5e-5]) and b == pytest.approx([2e-5, 2e-5, 1e-5, 5e-6])


def test_warmup_counts_iterations():
    assert rates(2, 2e-4, iterations_per_epoch=3, warmup=4) == [pytest.approx([0.5e-4, 1e-4, 1.5e-4, 5e-5, 5e-5, 5e-5])]


def test_new_branches_are_a_group_of_their_own():
    network = MCPMedSAM(freeze_image_encoder=True)
    lite, new = parameter_groups(network, lr=2e-4, new_branch_lr=2e-5)
    assert (lite["lr"], new["lr"]) == (2e-4, 2e-5)
    ids = {id(p) for p in new["params"]}
    assert id(network.prompt_encoder.content_cnn.head.weight) in ids and id(network.mask_decoder.join.weight) in ids
    ids = {id(p) for p in lite["params"]}
    assert id(network.mask_decoder.mask_tokens) in ids and id(network.mask_decoder.modality_head.fc1.weight) in ids
    trainable = sum(p.requires_grad for p in network.parameters())
    assert len(lite["params"]) + len(new["params"]) == trainable


def test_one_rate_is_one_group():
    assert len(parameter_groups(MCPMedSAM(), lr=2e-4, new_branch_lr=2e-4)) == 1
