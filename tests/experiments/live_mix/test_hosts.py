"""Training on several processes, as the example does it."""

import json

import numpy as np
import pytest

from experiments.live_mix import hosts
from mixjax.live import read_ledger


def test_slices_of_several_hosts_become_one_batch(tmp_path):
    whole = list(range(hosts.BATCH_SIZE))
    for step, num_hosts in ((7, 1), (8, 3)):
        for host in range(num_hosts):
            part = whole[host::num_hosts]
            line = {"step": step, "domain_ids": part, "rows": part, "value": [str(row) for row in part]}
            (tmp_path / f"rows_{step}_{host}_of_{num_hosts}.jsonl").write_text(json.dumps(line) + "\n")
    batches = hosts.global_batches(tmp_path)
    assert list(batches) == [7, 8] and batches[7] == batches[8] and batches[8]["rows"] == whole


@pytest.mark.slow
def test_another_number_of_hosts_goes_on_with_the_same_batches(tmp_path):
    several, alone = tmp_path / "several", tmp_path / "alone"
    for folder in (several, alone):
        folder.mkdir()
    hosts.finish([*hosts.start(several, 3, stop=6), *hosts.start(alone, 1, stop=12)])
    hosts.finish(hosts.start(several, 2, stop=12))
    batches = hosts.global_batches(several)
    assert list(batches) == list(range(12)) and not any(None in batch["rows"] for batch in batches.values())
    assert hosts.global_hash(several) == hosts.global_hash(alone)
    ledgers = [read_ledger(folder / "ledger.jsonl") for folder in (several, alone)]
    assert ledgers[0].step.values.tolist() == list(range(12))
    np.testing.assert_array_equal(ledgers[0].counts, ledgers[1].counts)
    # The rule has moved the mix.
    assert np.abs(ledgers[0].weights.values[-1] - 0.25).max() > 0.02
