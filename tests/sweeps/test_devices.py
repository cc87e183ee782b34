"""What is free: the host's memory, or what control groups leave of it; an accelerator's."""

import types

import jax
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import devices, lowering


def group(folder, limit, usage, cached, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, usage), strict=False):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECOND = ("memory.max", "memory.current", "inactive_file")


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_AVPHYS_PAGES": 10**6, "SC_PAGE_SIZE": 4096}[name])
    return tmp_path


def free(root, num_devices=1):
    return devices.free_bytes(jax.devices()[:1] * num_devices, root=root)


def test_without_control_groups_devices_share_the_hosts_memory(root):
    assert free(root) == 4096e6
    assert free(root, 4) == 1024e6


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [("0::/job/step", "sys/fs/cgroup", SECOND), ("4:cpu,memory:/job/step", "sys/fs/cgroup/memory", FIRST)],
    ids=["second version", "first version"],
)
def test_the_tightest_group_counts_and_what_the_kernel_would_drop_is_free(root, line, top, names):
    (root / "proc/self/cgroup").write_text(f"7:pids:/job\n{line}\n")
    group(root / top / "job/step", "max" if names is SECOND else 2**63 - 4096, 50, 0, names)
    assert free(root) == 4096e6
    group(root / top / "job", 1_000_000, 700_000, 100_000, names)
    assert free(root) == 400_000
    assert free(root, 2) == 200_000
    group(root / top / "job/step", 500_000, 200_000, 0, names)
    assert free(root) == 300_000
    group(root / top / "job/step", 500_000, 600_000, 50, names)
    assert free(root) == 0


def test_a_group_known_by_the_hosts_name_is_that_at_the_top(root):
    (root / "proc/self/cgroup").write_text("0::/kubepods/pod7\n")
    group(root / "sys/fs/cgroup", 3_000, 1_000, 0, SECOND)
    assert free(root) == 2_000


def test_an_accelerator_has_its_own():
    def device(limit, used):
        return types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": limit, "bytes_in_use": used})

    assert devices.free_bytes([device(100, 10), device(100, 30)]) == 70


def no_entry(name):
    raise ValueError("unrecognized configuration name")


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ({"SC_AVPHYS_PAGES": 10**6}, 4096e6),
        ({"SC_PHYS_PAGES": 10**6}, 2048e6),  # macOS
        ({"SC_AVPHYS_PAGES": -1, "SC_PHYS_PAGES": 10**6}, 2048e6),
        ({}, 4e9),
    ],
)
def test_a_host_without_the_number_of_free_pages(tmp_path, monkeypatch, pages, expected):
    known = {"SC_PAGE_SIZE": 4096, **pages}
    monkeypatch.setattr("os.sysconf", lambda name: known[name] if name in known else no_entry(name))
    assert free(tmp_path) == expected


def test_a_host_without_sysconf_and_devices_that_say_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sysconf")  # Windows

    def unknown():
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED")

    for stats in (unknown, lambda: None, dict):
        assert devices.free_bytes([types.SimpleNamespace(memory_stats=stats)] * 2, root=tmp_path) == 2e9


def test_a_sweep_runs_where_the_host_tells_nothing(monkeypatch):
    monkeypatch.setattr("os.sysconf", no_entry)
    for vectorize in ("map", "vmap"):
        result = mixjax.sweep(lambda key, *_: {"x": jax.random.normal(key)}, seeds=2, vectorize=vectorize)
        assert result.x.shape == (2,)


@pytest.mark.parametrize(("platform", "number", "cut"), [("cpu", 4, False), ("cpu", 3, True), ("gpu", 4, True)])
def test_loops_are_cut_into_tasks_where_cores_are_left_or_on_an_accelerator(monkeypatch, platform, number, cut):
    monkeypatch.setattr(devices, "_cores", lambda: 4)
    here = [types.SimpleNamespace(platform=platform, process_index=0)] * number
    # devices of another process have cores of their own
    elsewhere = types.SimpleNamespace(platform=platform, process_index=1)
    assert devices.compiler_options([*here, elsewhere]) == (
        {} if cut else {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}
    )


def normal(key, *_):
    return {"x": jax.random.normal(key)}


@pytest.mark.parametrize(("flags", "option"), [("", "xla_no_such_option"), ("--xla_disable_hlo_passes=dce", None)])
def test_a_sweep_runs_where_xla_lacks_the_option_and_leaves_the_users_own_alone(monkeypatch, flags, option):
    monkeypatch.setattr(devices, "_cores", lambda: 1)
    monkeypatch.setenv("XLA_FLAGS", flags)
    if option:
        monkeypatch.setattr(devices, "_LEAVE_OUT", option)
    assert devices.compiler_options(jax.devices()) == {}
    assert mixjax.sweep(normal, seeds=3, vectorize="map").x.shape == (3,)


def test_a_sweep_begun_with_other_options_of_the_compiler_goes_on(monkeypatch, tmp_path):
    """They are no part of its identity: versions before them, and machines of more cores, compile without."""
    begun = []

    def stop(*_):
        begun.append(1)
        raise KeyboardInterrupt

    def sweep(options, callback=None, folder=tmp_path / "runs"):
        monkeypatch.setattr(lowering, "compiler_options", lambda devices: options)
        lowering.lower.cache_clear()
        return mixjax.sweep(normal, seeds=4, chunk=2, devices=jax.devices()[:2], callback=callback, checkpoint=folder)

    with pytest.raises(KeyboardInterrupt):
        sweep({}, stop)
    assert begun and list((tmp_path / "runs").iterdir())
    rest = sweep({"xla_disable_hlo_passes": "cpu-parallel-task-assigner"})
    np.testing.assert_array_equal(rest.x, sweep({}, folder=None).x)
