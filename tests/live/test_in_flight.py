"""Weights that several processes send, as real processes that talk over loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HOST = """
import sys
import jax

rank, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)
from tests.live.test_in_flight import run

run(rank)
"""


def run(rank):
    """Sends weights in every way, and prints what became of them."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from mixjax.live import Feedback, Plan

    def changes(send, alone=False):
        plan = Plan([50, 40, 30], 4, [0.5, 0.3, 0.2], lag=4, host=(rank, 2))
        feedback = Feedback(plan, 2)
        try:
            for step in range(6):
                next(plan)
                feedback.send(step, *send(step))
                # One process may save the state without the others.
                if step == 3 and rank == 0 and alone:
                    feedback.get_state()
            return feedback.get_state()["changes"]
        except ValueError as error:
            return str(error)

    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    equal = NamedSharding(mesh, PartitionSpec())
    # What rounding does to the weights of a process.
    rounded = np.array([1.0, 2.0, 3.0], np.float32) * np.float32(1 + 1e-6 * rank)
    on_all = jax.jit(lambda step: jnp.array([1.0, 2.0, 3.0]) + step, out_shardings=equal)
    found = {
        "rounded": changes(lambda step: (rounded + step, rounded)),
        "local": changes(lambda step: (jnp.asarray(rounded) + step, rounded)),
        "on all devices": changes(lambda step: (on_all(step), np.ones(3))),
        "alone": changes(lambda step: (on_all(step),), alone=True),
        "sometimes": changes(lambda step: (rounded,) if step == 2 else (None,)),
        "one sends none": changes(lambda step: (None,) if step == 2 and rank == 1 else (rounded,)),
        "one sends more": changes(lambda step: (rounded, rounded if step == 2 and rank == 1 else None)),
        "not finite": changes(lambda step: (rounded * (np.nan if step == 2 and rank == 0 else 1.0),)),
        "not finite elsewhere": changes(lambda step: (rounded * (np.nan if rank == 1 else 1.0),)),
    }
    with jax.set_mesh(mesh):
        found["in a mesh"] = changes(lambda step: (on_all(step), np.ones(3)))
    print(json.dumps(found), flush=True)


@pytest.mark.slow
def test_all_processes_take_the_weights_of_the_first_or_raise():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = str(listener.getsockname()[1])
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(rank), port],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)

    wrong = ("one sends none", "one sends more")
    assert {name: each for name, each in first.items() if name not in wrong} == {
        name: each for name, each in second.items() if name not in wrong
    }
    assert len(first["rounded"]) == 4 and first["rounded"] == first["local"]
    assert first["rounded"][-1]["loss_weights"] is not None and first["alone"][-1]["loss_weights"] is None
    assert first["on all devices"] == first["in a mesh"]
    assert first["not finite elsewhere"][-1]["weights"] == first["sometimes"][-1]["weights"]
    assert first["not finite"].startswith("the weights sent after step 2 cannot be published")
    said = "all processes have to send the same: the first sent weights of step 2, and "
    assert first["one sends none"] == first["one sends more"] == said + "another did not."
    assert second["one sends none"] == said + "process 1 sent no weights of step 2."
    assert second["one sends more"] == said + "process 1 sent weights and loss weights of step 2."
