import pytest
import torch

from custom.engines import parameter_groups, step_decay_then_final
from custom.networks import build_mcp_medsam


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


def rate_of(groups, parameter):
    return next(group["lr"] for group in groups if any(parameter is p for p in group["params"]))


def test_new_branches_learn_at_a_rate_of_their_own():
    network = build_mcp_medsam(freeze_image_encoder=True)
    lite, new = groups = parameter_groups(network, lr=2e-4, new_branch_lr=2e-5, scaling=False)
    assert (lite["lr"], new["lr"]) == (2e-4, 2e-5)
    assert rate_of(groups, network.prompt_encoder.content_cnn.head.weight) == 2e-5
    assert rate_of(groups, network.mask_decoder.join.weight) == 2e-5
    assert rate_of(groups, network.mask_decoder.mask_tokens) == 2e-4
    assert rate_of(groups, network.mask_decoder.modality_head.fc1.weight) == 2e-4
    trainable = sum(p.requires_grad for p in network.parameters())
    assert len(lite["params"]) + len(new["params"]) == trainable


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("prompt_encoder.modality_embed.weight", 256),
        ("prompt_encoder.modality_mlp.fc1.weight", 512),
        ("prompt_encoder.content_cnn.stem.weight", 3 * 3 * 3),
        ("prompt_encoder.content_cnn.head.weight", 256 * 5 * 5),
        ("prompt_encoder.content_cnn.head.bias", 1),
        ("mask_decoder.film_weight.weight", 256),
        ("mask_decoder.join.weight", 512),
        ("mask_decoder.content_block.conv2.weight", 256 * 3 * 3),
    ],
)
def test_layers_of_many_inputs_learn_slower(name, inputs):
    network = build_mcp_medsam(freeze_image_encoder=True)
    groups = parameter_groups(network, lr=2e-4, new_branch_lr=1e-4)
    assert rate_of(groups, network.get_parameter(name)) == pytest.approx(1e-4 * min(1, 256 / inputs))


def test_the_refinement_has_a_rate_of_its_own():
    network = build_mcp_medsam(freeze_image_encoder=True, mask_refinement=True)
    groups = parameter_groups(network, lr=2e-4, new_branch_lr=1e-4, refinement_lr=1e-3)
    of_it = {rate_of(groups, parameter) for parameter in network.mask_refinement.parameters()}
    assert of_it == {1e-3} and groups[0]["lr"] == 2e-4


def test_the_last_epoch_runs_at_the_final_rate_of_the_first_group():
    a, b = rates(2, 2e-4, 1e-3)
    assert a == pytest.approx([2e-4, 5e-5]) and b == pytest.approx([1e-3, 2.5e-4])


def test_what_lite_medsam_has_keeps_its_rate_however_many_inputs():
    network = build_mcp_medsam()
    groups = parameter_groups(network, lr=2e-4, new_branch_lr=1e-4)
    assert rate_of(groups, network.get_parameter("mask_decoder.transformer.blocks.0.mlp.3.weight")) == 2e-4


def test_one_rate_is_one_group():
    assert len(parameter_groups(build_mcp_medsam(), lr=2e-4, new_branch_lr=2e-4, scaling=False)) == 1
