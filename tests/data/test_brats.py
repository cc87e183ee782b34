"""The BraTS reader on small volumes that the tests write in the challenge's layout."""

import sys

import nibabel
import numpy as np
import pytest

from mixjax.data import brats
from mixjax.data.segmentation import CHANNELS

SHAPE = (20, 24, 18)
LPS = np.array([[-1, 0, 0, 19], [0, -1, 0, 23], [0, 0, 1, 5], [0, 0, 0, 1]], float)  # how BraTS stores its volumes
NAMES = ("BraTS19_TCIA01_201_1", "BraTS19_CBICA_AAB_1", "BraTS19_2013_2_1")


def volumes(seed=0):
    """A head in the middle of the volumes, in it nested boxes: oedema 2 around core 1 around enhancing 4."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in CHANNELS:
        made[name] = np.zeros(SHAPE, np.int16)
        made[name][3:17, 2:22, 4:16] = rng.integers(100, 1000, (14, 20, 12))
    seg = np.zeros(SHAPE, np.uint8)
    seg[4:13, 5:16, 6:14], seg[5:11, 7:14, 7:13], seg[6:9, 8:12, 8:12] = 2, 1, 4
    return made | {"seg": seg}


def write(folder, name, made, *, ending=".nii.gz", affine=LPS):
    (folder / name).mkdir(parents=True)
    for kind, values in made.items():
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / name / f"{name}_{kind}{ending}")
    return folder / name


def only(folder):
    (case,) = brats.list_cases(folder)
    return case


# --- listing --------------------------------------------------------------------------------------------------------


def test_cases_of_both_grades_are_listed_by_name_with_their_centres(tmp_path):
    for grade, name in zip(("HGG", "LGG", "HGG"), NAMES, strict=True):
        write(tmp_path / grade, name, {"flair": np.ones((2, 2, 2))})
    cases = brats.list_cases(tmp_path)
    assert [(case.name, case.centre) for case in cases] == [
        ("BraTS19_2013_2_1", "2013"),
        ("BraTS19_CBICA_AAB_1", "CBICA"),
        ("BraTS19_TCIA01_201_1", "TCIA"),
    ]
    assert cases[1].folder == tmp_path / "LGG" / "BraTS19_CBICA_AAB_1"
    assert brats.centre_names(cases) == ["2013", "CBICA", "TCIA"]
    assert [case.name for case in brats.list_cases(str(tmp_path / "LGG"))] == [NAMES[1]]


@pytest.mark.parametrize(
    ("name", "centre"),
    [
        ("Brats17_CBICA_ATF_1", "CBICA"),
        ("Brats18_TCIA08_469_1", "TCIA"),
        ("BraTS19_TMC_06643_1", "TMC"),
        ("BraTS20_Training_001", "unknown"),
        ("BraTS2021_00002", "unknown"),
    ],
)
def test_centre_from_the_name(tmp_path, name, centre):
    write(tmp_path, name, {"flair": np.ones((2, 2, 2))})
    assert only(tmp_path).centre == centre


def test_centre_from_the_name_mapping(tmp_path):
    for number in (1, 2, 3):
        write(tmp_path, f"BraTS20_Training_00{number}", {"flair": np.ones((2, 2, 2))})
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,"
        "BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "LGG,NA,NA,TCGA-CS-4942,BraTS19_TCIA10_266_1,BraTS20_Training_002\n"
        "HGG,NA,NA,NA,NA,BraTS20_Training_003\n"
    )
    assert [case.centre for case in brats.list_cases(tmp_path)] == ["CBICA", "TCIA", "unknown"]


def test_listing_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        brats.list_cases(tmp_path / "nowhere")
    (tmp_path / "HGG").mkdir()
    (tmp_path / "HGG" / "flair.nii.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="no case is below"):
        brats.list_cases(tmp_path)
    for grade in ("HGG", "LGG"):
        write(tmp_path / grade, NAMES[0], {"flair": np.ones((2, 2, 2))})
    with pytest.raises(ValueError, match=f"two cases have the name {NAMES[0]}: .*HGG.* and .*LGG"):
        brats.list_cases(tmp_path)


# --- one case -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_case_is_turned_cut_and_relabelled(tmp_path, ending):
    made = volumes()
    write(tmp_path, NAMES[0], made, ending=ending)
    image, label, spacing = brats.load_case(only(tmp_path))
    assert image.dtype == np.float32 and label.dtype == np.int8
    box = slice(3, 17), slice(2, 22), slice(4, 16)
    for channel, name in enumerate(CHANNELS):  # LPS becomes RAS: the first two axes are turned round
        np.testing.assert_array_equal(image[..., channel], made[name][box][::-1, ::-1])
    seg = made["seg"][box][::-1, ::-1]
    for region, values in ((1, (1, 2, 4)), (2, (1, 4)), (3, (4,))):
        np.testing.assert_array_equal(label >= region, np.isin(seg, values))
    np.testing.assert_allclose(spacing, 1)


def test_axes_and_spacing_follow_the_affine(tmp_path):
    affine = np.array([[0, 0, 2.0, 7], [1.5, 0, 0, -3], [0, -0.5, 0, 1], [0, 0, 0, 1]])
    made = volumes()
    write(tmp_path, NAMES[0], made, affine=affine)
    image, label, spacing = brats.load_case(only(tmp_path))
    np.testing.assert_allclose(spacing, [2.0, 1.5, 0.5])
    expected = made["t1"][3:17, 2:22, 4:16].transpose(2, 0, 1)[:, :, ::-1]  # right, anterior, superior
    np.testing.assert_array_equal(image[..., 0], expected)
    assert label.shape == expected.shape


def test_scaled_integers_and_float_labels_are_read(tmp_path):
    made = volumes()
    folder = write(tmp_path, NAMES[0], made)
    scaled = nibabel.Nifti1Image(made["t1"], LPS)
    scaled.header.set_slope_inter(0.5, 0)
    nibabel.save(scaled, folder / f"{NAMES[0]}_t1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(made["seg"].astype(np.float32), LPS), folder / f"{NAMES[0]}_seg.nii.gz")
    image, label, _ = brats.load_case(only(tmp_path))
    np.testing.assert_allclose(image[..., 0].max(), made["t1"].max() / 2)
    assert set(np.unique(label)) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", [*CHANNELS, "seg"])
def test_a_missing_volume_is_named(tmp_path, kind):
    made = volumes()
    del made[kind]
    write(tmp_path, NAMES[0], made)
    with pytest.raises(FileNotFoundError, match=f"case {NAMES[0]}: neither .*_{kind}.nii.gz nor .*_{kind}.nii"):
        brats.load_case(only(tmp_path))


def broken_shape(made):
    made["t2"] = made["t2"][:-1]


def broken_dimension(made):
    made["t2"] = made["t2"][..., None].repeat(2, -1)


def broken_nan(made):
    made["t2"] = made["t2"].astype(np.float32)
    made["t2"][10, 10, 10:12] = np.nan, np.inf


def broken_label(made):
    made["seg"][0, 0, 0] = 3


def broken_head(made):
    for name in CHANNELS:
        made[name][:] = 0


@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (broken_shape, "t2", r"shape \(19, 24, 18\) differs from \(20, 24, 18\) of t1"),
        (broken_dimension, "t2", r"must be 3-D, got shape \(20, 24, 18, 2\)"),
        (broken_nan, "t2", "2 voxels are not finite"),
        (broken_label, "seg", r"labels must be among \[0, 1, 2, 4\], got \[3"),
        (broken_head, "t1", "no channel has a voxel other than 0"),
    ],
)
def test_bad_volumes_are_named(tmp_path, damage, kind, reason):
    made = volumes()
    damage(made)
    write(tmp_path, NAMES[0], made)
    with pytest.raises(ValueError, match=f"case {NAMES[0]}: .*{NAMES[0]}_{kind}.*{reason}"):
        brats.load_case(only(tmp_path))


def test_another_affine_is_named(tmp_path):
    made = volumes()
    folder = write(tmp_path, NAMES[0], made)
    moved = LPS.copy()
    moved[0, 3] += 1
    nibabel.save(nibabel.Nifti1Image(made["flair"], moved), folder / f"{NAMES[0]}_flair.nii.gz")
    with pytest.raises(ValueError, match=f"case {NAMES[0]}: .*_flair: affine"):
        brats.load_case(only(tmp_path))


@pytest.mark.parametrize("cut", [0, 20, 300, 2000])
def test_a_truncated_volume_is_named(tmp_path, cut):
    path = write(tmp_path, NAMES[0], volumes()) / f"{NAMES[0]}_t1ce.nii.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"case {NAMES[0]}: .*t1ce.nii.gz"):
        brats.load_case(only(tmp_path))


# --- many cases -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        write(tmp_path, name, volumes(seed))
    return tmp_path


def test_load_gives_the_same_record_as_the_simulation(folder):
    cases = brats.load(folder, grid=24)
    assert cases.images.shape == (3, 24, 24, 24, 4) and cases.images.dtype == np.float32
    assert cases.labels.shape == (3, 24, 24, 24) and cases.labels.dtype == np.int8
    assert cases.centres.tolist() == [0, 1, 2] and cases.centres.dtype == np.int32
    for image, label in zip(cases.images, cases.labels, strict=True):
        head = (image != 0).any(-1)
        np.testing.assert_allclose(image[head].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(image[head].std(0), 1, atol=1e-4)
        assert set(np.unique(label)) == {0, 1, 2, 3} and (label[~head] == 0).all()
        voxel = (20 / 0.88 / 24) ** 3  # mm3: the head is 20 voxels of 1 mm long and fills 88 % of the cube
        volumes_mm3 = [(label >= region).sum() * voxel for region in (1, 2, 3)]
        np.testing.assert_allclose(volumes_mm3, [9 * 11 * 8, 6 * 7 * 6, 3 * 4 * 4], rtol=0.25)


def test_load_takes_a_part_in_its_order_and_keeps_the_centres(folder):
    listed = brats.list_cases(folder)
    whole, part = brats.load(folder, grid=8), brats.load(folder, grid=8, cases=[listed[2], listed[0]])
    assert part.centres.tolist() == [2, 0]
    np.testing.assert_array_equal(part.images, whole.images[[2, 0]])


def test_load_reads_one_case_at_a_time(folder, monkeypatch):
    (folder / NAMES[0] / f"{NAMES[0]}_seg.nii.gz").unlink()
    first = [case for case in brats.list_cases(folder) if case.name != NAMES[0]]
    assert len(brats.load(folder, grid=8, cases=first).images) == 2  # the broken case is not touched
    with pytest.raises(FileNotFoundError, match=NAMES[0]):
        brats.load(folder, grid=8)


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"brats.load_case needs nibabel: pip install nibabel"):
        brats.load(folder, grid=8)
