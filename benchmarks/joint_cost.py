"""Time and memory of several objectives at once over the sum of each alone.

    python benchmarks/joint_cost.py [--config examples/joint_all_sigreg.yaml] [--batch 32]

Time is that of forward, backward and moving averages, all in turns in one process. Memory is what a
step must hold: the tensors saved for the backward pass, and the parameters and buffers; the
backbone, which is there once, counts once in the sum of the parts too.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from real_images import of_config
from step_time import measure
from torch import Tensor

from cxrssl.data.phantom import Phantom
from cxrssl.objectives import Joint


def bytes_of(tensors: list[Tensor]) -> int:
    """Return the bytes of the tensors' storages, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def saved_bytes(loss: Callable[[], Tensor]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    return bytes_of(kept)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("examples/joint_all_sigreg.yaml"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    joint = of_config(options.config, [])
    assert isinstance(joint, Joint)
    joint.train()
    rng = np.random.default_rng(0)
    phantom = Phantom(96)
    images = [phantom.pixels(number) for number in range(options.batch)]
    batch = joint.views.collate([joint.views(image, rng) for image in images], rng)

    def together() -> Tensor:
        terms = joint.weighted_terms(batch, 0.5)
        return torch.stack([weight * term for weight, term in terms.values()]).sum()

    def alone(name: str) -> Tensor:
        terms = joint.children_by_name[name].weighted_terms(batch[name], 0.5)
        return torch.stack([weight * term for weight, term in terms.values()]).sum()

    def step(loss: Callable[[], Tensor], move: Callable[[float], None]) -> Callable[[], None]:
        def run() -> None:
            loss().backward()
            joint.zero_grad()
            move(0.5)

        return run

    losses: dict[str, Callable[[], Tensor]] = {"Joint": together}
    steps = {"Joint": step(together, joint.update_teacher)}
    for name, child in joint.children_by_name.items():
        losses[name] = lambda name=name: alone(name)  # type: ignore[misc]
        steps[name] = step(losses[name], child.update_teacher)
    times = measure(steps, options.rounds, "cpu")
    saved = {name: saved_bytes(loss) for name, loss in losses.items()}

    print(f"{options.config}, batch {options.batch}")
    print("| what | ms, median | saved for backward, MB |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {1000 * statistics.median(values):.0f} | {saved[name] / 2**20:.1f} |")
    alone_times = zip(*(times[name] for name in joint.objectives), strict=True)
    ratio = statistics.median(
        whole / sum(each) for whole, each in zip(times["Joint"], alone_times, strict=True)
    )
    memory = saved["Joint"] / sum(saved[name] for name in joint.objectives)
    print(f"Joint over the sum of the parts: time {ratio:.3f}, saved tensors {memory:.3f}")
    state = bytes_of(list(joint.state_dict().values()))
    own = [
        bytes_of([v for n, v in child.state_dict().items() if not n.startswith("backbone.")])
        for child in joint.children_by_name.values()
    ]
    once = bytes_of(list(joint.backbone.state_dict().values()))
    print(
        f"Parameters and buffers: {state / 2**20:.1f} MB, parts {(sum(own) + once) / 2**20:.1f} MB"
    )


if __name__ == "__main__":
    main()
