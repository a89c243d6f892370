import multiprocessing

import pytest
import torch
import torch.distributed as dist

from custom.engines import rank_share
from custom.engines.gathered_loss import GatheredMCPMedSAMLoss
from custom.losses import MCPMedSAMLoss
from custom.networks.mcp_medsam import MCPMedSAMOutput


def predict(weight, rows):
    """A stand-in for the network: every output depends on the one weight and the inputs of its rows."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 6, generator=generator)[rows]
    output = MCPMedSAMOutput(
        mask_logits=(inputs @ weight)[:, None, :4].unflatten(2, (2, 2)),  # Bx1x2x2
        iou=(inputs @ weight)[:, :1],
        modality_logits=inputs @ weight,
        sparse_content=(inputs @ weight) ** 2,
        dense_content=torch.tanh(inputs @ weight),
    )
    label = (torch.rand(4, 1, 2, 2, generator=generator) > 0.5)[rows]
    return output, {"label": label, "modality": torch.arange(4)[rows]}


def start_weight():
    return torch.linspace(-1, 1, 36).reshape(6, 6).requires_grad_()


def run_rank(rank, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    weight, loss = start_weight(), GatheredMCPMedSAMLoss(contrastive=1.0)
    value = loss(*predict(weight, slice(rank, None, 2)))
    value.backward()
    dist.all_reduce(weight.grad)  # what DistributedDataParallel does
    shares = [list(rank_share(length=length)) for length in (1, 2, 5)]
    queue.put((rank, value.item(), loss.log(), (weight.grad / 2).tolist(), shares))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    context = multiprocessing.get_context("spawn")
    queue, store = context.Queue(), tmp_path_factory.mktemp("store") / "file"
    processes = [context.Process(target=run_rank, args=(rank, store, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return results


def test_loss_and_gradient_are_those_of_one_process(ranks):
    weight, loss = start_weight(), MCPMedSAMLoss(contrastive=1.0)
    total = loss(*predict(weight, slice(None)))
    total.backward()
    assert sum(value for _, value, *_ in ranks) / 2 == pytest.approx(total.item(), abs=1e-6)
    for _, _, log, gradient, _ in ranks:
        assert log == pytest.approx(loss.log(), abs=1e-6)
        torch.testing.assert_close(torch.tensor(gradient), weight.grad)


def test_shares_of_an_evaluation(ranks):
    first, second = (shares for *_, shares in ranks)
    assert first == [[0], [0], [0, 2, 4]] and second == [[0], [1], [1, 3]]
