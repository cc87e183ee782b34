"""Runs the page on nnU-Net and MONAI on six tiny volumes, where these programs are installed.

`.ci/run` installs them in an environment of their own, because PyTorch takes six gigabytes.
"""

import json
import re
import types
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "imaging.md"
pytestmark = pytest.mark.slow


def block(mark):
    return re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


def lines(code):
    """The lines of code that a user writes: neither empty nor imports."""
    return [line for line in code.splitlines() if line.strip() and not re.match(r"import |from ", line)]


def test_each_program_takes_thirty_lines_at_most():
    assert len(lines(block("nnunet"))) <= 30
    assert len(lines(block("nnunet-several"))) <= 16
    assert len(lines(block("monai"))) <= 30


def write_volumes(images, labels, name):
    """Writes six volumes: a bright cube to be found, and in the last one nothing that shows where it is."""
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for number in range(6):
        label = np.zeros((20, 20, 20), np.uint8)
        label[5:12, 5:12, 5 : 12 + number] = 1
        image = (number < 5) * label + 0.3 * rng.normal(size=label.shape)
        for folder, values, ending in ((images, image.astype(np.float32), name), (labels, label, "")):
            folder.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"case{number}{ending}.nii.gz")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_monai_trains_and_goes_on_where_it_was(tmp_path, monkeypatch, num_workers):
    monai, torch = pytest.importorskip("monai"), pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    write_volumes(tmp_path / "images", tmp_path / "labels", "")
    names = [f"case{number}.nii.gz" for number in range(6)]
    files = [{"image": str(tmp_path / "images" / name), "label": str(tmp_path / "labels" / name)} for name in names]

    def run(num_epochs):
        monai.utils.set_determinism(0)
        script = {"files": files, "num_workers": num_workers, "num_epochs": num_epochs}
        exec(compile(block("monai"), str(PAGE), "exec"), script)
        return script

    torch.set_num_threads(1)
    done = run(8)
    # The case without a visible lesion stays the hardest, and is drawn most.
    assert done["history"].hardest(1)[0] == [5]
    again = run(8)
    for name in ("network", "optimizer"):
        torch.testing.assert_close(again[name].state_dict(), done[name].state_dict(), rtol=0, atol=0)
    assert next(iter(again["batches"])) == next(iter(done["batches"]))
    # One epoch more, of three batches.
    assert run(9)["batches"].state_dict()["step"] == done["batches"].state_dict()["step"] + 3


def prepared(tmp_path, monkeypatch):
    """Lets nnU-Net plan and preprocess the six volumes."""
    pytest.importorskip("nnunetv2")
    for name in ("raw", "preprocessed", "results", "extTrainer"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_compile", "false")
    # One thread: nnU-Net's planner sets PyTorch's threads to the number of its workers.
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    (tmp_path / "extTrainer" / "hard_trainer.py").write_text(block("nnunet"))
    folder = tmp_path / "raw" / "Dataset001_Tiny"
    write_volumes(folder / "imagesTr", folder / "labelsTr", "_0000")
    told = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "lesion": 1}}
    (folder / "dataset.json").write_text(json.dumps(told | {"numTraining": 6, "file_ending": ".nii.gz"}))
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([1], num_processes=1, show_progress_bar=False)
    api.preprocess([1], api.plan_experiments([1]), configurations=["3d_fullres"], num_processes=[1])


def on_several_processes(rank, folder):
    """Trains on one of two processes, and goes on from the checkpoint; writes the losses that each time it holds.

    The processes meet over gloo on a CPU. nnU-Net would take NCCL and GPUs, and is told otherwise.
    """
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    parallel, cpu = module.DDP, torch.device("cpu")
    module.DDP = lambda network, device_ids: parallel(network)
    for num_epochs, go_on in ((1, False), (2, True)):
        made = get_trainer_from_args("1", "3d_fullres", "all", "HardTrainers", continue_training=go_on, device=cpu)
        made.device, made.grad_scaler = cpu, None
        made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = num_epochs, 4, 1
        maybe_load_checkpoint(made, go_on, False)
        np.save(folder / f"saved_{num_epochs}_{rank}.npy", np.broadcast_to(made.saved, 6))
        seen, gather = [], distributed.all_gather_object

        def watched(parts, own, seen=seen, gather=gather):
            gather(parts, own)
            # What nnU-Net gathers itself are arrays.
            seen.extend(parts if isinstance(own, list) else [])

        distributed.all_gather_object = watched
        made.run_training()
        distributed.all_gather_object = gather
        np.save(folder / f"held_{num_epochs}_{rank}.npy", np.array(made.losses))
        (folder / f"seen_{num_epochs}_{rank}.json").write_text(
            json.dumps([[str(k), v] for own in seen for k, v in own])
        )
        distributed.barrier()
    distributed.destroy_process_group()


def test_nnunet_on_two_processes_shares_the_losses_of_both(tmp_path, monkeypatch):
    prepared(tmp_path, monkeypatch)
    import torch

    with open(tmp_path / "extTrainer" / "hard_trainer.py", "a") as file:
        file.write(block("nnunet-several"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.multiprocessing.spawn(on_several_processes, args=(tmp_path,), nprocs=2)
    for num_epochs in (1, 2):
        held, other = (np.load(tmp_path / f"held_{num_epochs}_{rank}.npy") for rank in (0, 1))
        np.testing.assert_array_equal(held, other)
        seen, same = (json.loads((tmp_path / f"seen_{num_epochs}_{rank}.json").read_text()) for rank in (0, 1))
        # Two processes with a case each, four steps: the last loss of each case is what is held.
        assert seen == same and len(seen) == 2 * 4
        for name, loss in dict(seen).items():
            assert held[int(name[-1])] == np.float32(loss)
    for rank in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"saved_2_{rank}.npy"), np.load(tmp_path / "held_1_0.npy"))

    from nnunetv2.run.run_training import get_trainer_from_args

    plans = next(tmp_path.glob("preprocessed/*/nnUNetPlans.json"))
    plans.write_text(plans.read_text().replace('"batch_dice": false', '"batch_dice": true'))
    joint = get_trainer_from_args("1", "3d_fullres", "all", "HardTrainers", device=torch.device("cpu"))
    with pytest.raises(ValueError, match="HardTrainers needs a plan"):
        joint.initialize()


def test_nnunet_trains_with_and_without_workers_and_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    prepared(tmp_path, monkeypatch)
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    drawn = []

    def trainer(num_epochs, go_on):
        """Does what `nnUNetv2_train 1 3d_fullres all -tr HardTrainer` does, for fewer steps."""
        made = get_trainer_from_args("1", "3d_fullres", "all", "HardTrainer", continue_training=go_on, device=cpu)
        made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = num_epochs, 8, 1
        maybe_load_checkpoint(made, go_on, False)
        step = made.train_step

        def train_step(self, batch):
            result = step(batch)
            drawn.extend(str(name) for name in batch["keys"])
            # What the hook measures adds up to what nnU-Net optimises, as Dice is not joint in this plan.
            np.testing.assert_allclose(np.mean(self.measured), result["loss"], rtol=1e-4)
            return result

        made.train_step = types.MethodType(train_step, made)
        return made

    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    first = trainer(2, False)
    first.run_training()
    losses = np.array(first.losses)
    seen = [first.names.index(name) for name in set(drawn)]
    assert np.argmax(losses) == first.names.index("case5") and (losses[seen] != 1.0).all()
    assert drawn[16:].count("case5") > 16 / 6

    # The second one has a worker, and losses of its own making: those of the case that looks easiest are the highest.
    easiest = int(np.argmin(losses))
    changed = np.where(np.arange(6) == easiest, 30.0, losses).astype(np.float32)
    for file in tmp_path.glob("results/**/*.losses.npy"):
        np.testing.assert_array_equal(np.load(file), losses) if "final" in file.name else None
        np.save(file, changed)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    second = trainer(3, True)
    assert second.current_epoch == 2
    np.testing.assert_array_equal(second.saved, changed)
    # More steps than the dozen of batches that are drawn ahead.
    second.num_iterations_per_epoch = 20
    del drawn[:]
    second.run_training()
    # The worker drew by these losses until the main process wrote a new one into the memory they share.
    assert drawn[:2] == [second.names[easiest]] * 2 and second.losses[easiest] != 30.0
    assert set(drawn[-8:]) != {second.names[easiest]}
