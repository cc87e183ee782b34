"""Measures what mixjax costs, side by side: ``python -m experiments.benchmarks [--quick] [NAME ...]``.

| name | question |
|---|---|
| ``figure_1`` | How fast is a sweep beside a Python loop of jitted steps, and beside PyTorch? |
| ``seeds`` | What does a run cost as seeds are added, and what is compiled again? |
| ``overhead`` | What does a weight rule add to a training step of a neural network? |
| ``floor`` | How much of the sweep's time is unavoidable? |
| ``samplers`` | What does a draw by stale losses cost, from 10^3 to 10^7 examples? |
| ``norms`` | What do all examples' gradient norms cost? |
| ``norm_peers`` | What do they cost beside Opacus and jax-privacy? |
| ``hypergradients`` | What do hypergradients cost? |
| ``hypergradient_peers`` | What do they cost beside TorchOpt, higher and jaxopt? |
| ``live_mix`` | What does a mix that moves cost a row, beside grain's own, other loaders and a plain loop? |
| ``swarm`` | How many small language models does a minute train, beside loops, processes and PyTorch? |
| ``throughput`` | How many run-steps a second, and how much of what the machine can do? |

The module of each name has ``run(quick) -> timing.Report``, and ``results/NAME/`` holds what it measured last. Absolute
times depend on the machine and on what else it does, so the sides of a comparison are measured in turns and compared
within a turn. None of this is a test.
"""
