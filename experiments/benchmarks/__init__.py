"""What mixjax costs, measured side by side: ``python -m experiments.benchmarks [--quick] [a b c d e f g h]``.

| module | question |
|---|---|
| ``figure_1`` (a) | How fast is a sweep beside a Python loop of jitted steps, and beside PyTorch? |
| ``seeds`` (b) | What does a run cost as seeds are added, and what is compiled again? |
| ``overhead`` (c) | What does a weight rule add to a training step of a neural network? |
| ``floor`` (d) | How much of the sweep's time is unavoidable? |
| ``samplers`` (e) | What does a draw by stale losses cost, from 10^3 to 10^7 examples? |
| ``norms`` (f) | What do all examples' gradient norms cost? |
| ``mixing`` (g) | What do hypergradients cost? |
| ``throughput`` (h) | How many run-steps a second, and how much of what the machine can do? |

Each module has ``run(quick) -> timing.Report``. Absolute times depend on the machine and on what else it does, so the
sides of a comparison are measured in turns and compared within a turn. None of this is a test.
"""
