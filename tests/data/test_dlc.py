"""DeepLabCut projects: against pandas and the source files themselves, and messages of broken tables."""

import contextlib
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from kplab.data.formats import dlc
from kplab.data.formats._pandas_hdf import literal, read_frame
from kplab.data.sources.files import FileSource
from kplab.errors import DataError
from kplab.structures.labels import make_labels
from kplab.structures.poses import Poses
from kplab.structures.skeleton import Skeleton


def free(*names: str) -> Skeleton:
    return Skeleton("free", names, (), tuple(range(len(names))), (0.025,) * len(names), "made up")


MOUSE = free("tailbase", "snout", "leftear", "rightear")

SINGLE = """scorer,Ann,Ann,Ann,Ann
bodyparts,b,b,a,a
coords,x,y,x,y
labeled-data/v/img2.png,1.5,2.0,,
labeled-data/v/img1.png,0.1,0.2,3.25,4.0
labeled-data/v/img10.png,,,,
"""

MULTI = """scorer,,,Ann,Ann,Ann,Ann,Ann,Ann,Ann,Ann,Ann,Ann
individuals,,,m2,m2,m2,m2,m1,m1,m1,m1,single,single
bodyparts,,,a,a,b,b,a,a,b,b,corner,corner
coords,,,x,y,x,y,x,y,x,y,x,y
labeled-data,v,img2.png,1.5,2.0,,,,,,,9.0,9.5
labeled-data,v,img1.png,0.1,0.2,3.25,4.0,5.0,6.0,7.0,8.0,,
"""


def project(folder: Path, *tables: str, video: str = "v") -> Path:
    where = folder / "labeled-data" / video
    where.mkdir(parents=True)
    for name in ("img1.png", "img2.png", "img10.png"):
        Image.new("RGB", (20, 10)).save(where / name)
    for i, table in enumerate(tables):
        (where / f"CollectedData_{'Ann' if i == 0 else i}.csv").write_text(table)
    return folder


def test_single_animal_csv(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, SINGLE), free("a", "b"))
    assert list(labels.names) == [f"labeled-data/v/{n}.png" for n in ("img2", "img1", "img10")]
    assert labels.start.tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(labels.poses.xy, [[[np.nan] * 2, [2, 2.5]], [[3.75, 4.5], [0.6, 0.7]]])
    assert labels.poses.visible.tolist() == [[0, 2], [2, 2]]
    assert labels.size.tolist() == [[20, 10]] * 3
    assert set(labels.group) == {"labeled-data/v"}


def test_boxes_are_the_extent_with_margin_and_never_empty(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, SINGLE), free("a", "b"), box_margin=2)
    # hull 0.6 .. 3.75, 0.7 .. 4.5, doubled about its centre
    np.testing.assert_allclose(labels.poses.box[1], [2.175 - 3.15, 2.6 - 3.8, 2.175 + 3.15, 2.6 + 3.8])
    np.testing.assert_allclose(labels.poses.box[0], [1, 1.5, 3, 3.5], err_msg="one point: 1 px, doubled")
    np.testing.assert_allclose(labels.poses.area, [0.53 * 4, 0.53 * 6.3 * 7.6])
    assert labels.box_source == "keypoint extent x 2"
    assert labels.area_source == "0.53 x box (keypoint extent x 2)"


@pytest.mark.parametrize("kind", ["csv", "h5"])
@pytest.mark.parametrize("text", [SINGLE, MULTI])
def test_tables_return_as_they_were(tmp_path: Path, text: str, kind: str) -> None:
    source = project(tmp_path / "a", text)
    written = dlc.write(dlc.read(source, free("a", "b")), tmp_path / "b")
    assert written[0].read_text() == text
    project(tmp_path / "c")
    dlc.write(dlc.read(source, free("a", "b")), tmp_path / "c", kinds=[kind])
    again = dlc.write(dlc.read(tmp_path / "c", free("b", "a"), labels=kind), tmp_path / "d")
    assert again[0].read_text() == text
    pd.testing.assert_frame_equal(pd.read_hdf(again[1]), pd.read_hdf(written[1]))


def test_multi_animal_keeps_individuals_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, MULTI), free("a", "b"))
    assert labels.start.tolist() == [0, 1, 3]
    assert [labels.extras.instance[int(i)] for i in labels.instance_id] == ["m2", "m2", "m1"]
    np.testing.assert_allclose(labels.poses.xy[2], [[5.5, 6.5], [7.5, 8.5]])
    assert labels.notes == ["unique bodyparts that skeleton 'free' lacks are left out: corner"]


def test_unique_bodyparts_can_be_read_too(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, MULTI), free("corner", "a", "b"))
    assert labels.start.tolist() == [0, 2, 4]
    assert labels.poses.visible.tolist() == [[0, 2, 0], [2, 0, 0], [0, 2, 2], [0, 2, 2]]
    assert labels.notes == []


def test_what_changed_is_written_and_points_outside_are_kept(tmp_path: Path) -> None:
    text = SINGLE.replace("3.25,4.0", "33.25,4.0")
    labels = dlc.read(project(tmp_path, text), free("a", "b"))
    assert any(n.startswith("1 labelled keypoints of 1 instances lie more than 1 px outside") for n in labels.notes)
    assert labels.poses.visible[1].tolist() == [0, 2]
    labels.poses.xy[0, 0] = [7.5, 8.5]
    labels.poses.visible[0, 0] = 2
    out = dlc.write(labels, tmp_path / "out", kinds=["csv"])[0].read_text()
    assert out == text.replace("1.5,2.0,,", "1.5,2.0,7.0,8.0")


@settings(max_examples=15)
@given(hnp.arrays(np.float64, (3, 2, 2), elements=st.floats(0, 19) | st.just(np.nan)), st.booleans())
def test_fresh_tables_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, xy: np.ndarray, columns: bool
) -> None:
    folder = project(tmp_path_factory.mktemp("dlc"))
    xy[:, 0] = np.nan_to_num(xy[:, 0])
    files = [f"labeled-data/v/{n}.png" for n in ("img2", "img10", "img1")]
    size = np.full((3, 2), 20)
    poses = Poses.make(xy + 0.5)
    how = {"box_source": "none", "area_source": "none"}
    labels = make_labels(
        free("a", "b"),
        FileSource(folder, files),
        np.arange(1, 4),
        size,
        None,
        poses,
        np.array([2, 0, 2]),
        np.array([5, 6, 7]),
        **how,
    )
    for name in files:
        Image.new("RGB", (20, 20)).save(folder / name)
    dlc.write(labels, folder, scorer="me", columns=columns)
    for kind in ("csv", "h5"):
        again = dlc.read(folder, free("a", "b"), labels=kind)
        assert list(again.names) == files
        np.testing.assert_array_equal(again.start, labels.start)
        np.testing.assert_allclose(again.poses.xy, labels.poses.xy, atol=1e-9)


@pytest.mark.parametrize("kind", ["csv", "h5"])
def test_the_openfield_project_returns_byte_for_byte(real_data: Path, tmp_path: Path, kind: str) -> None:
    source = real_data / "dlc_openfield_mouse"
    labels = dlc.read(source, MOUSE, labels=kind)
    assert (len(labels), len(labels.poses)) == (116, 116)
    oracle = pd.read_csv(
        source / "labeled-data" / "m4s1" / "CollectedData_Pranav.csv", header=[0, 1, 2], index_col=0
    ).droplevel("scorer", axis=1)
    for k, name in enumerate(MOUSE.keypoints):
        np.testing.assert_allclose(labels.poses.xy[:, k] - 0.5, oracle[name].to_numpy(), atol=1e-9)
    out = dlc.write(labels, tmp_path)
    assert out[0].read_bytes() == (source / "labeled-data" / "m4s1" / out[0].name).read_bytes()
    pd.testing.assert_frame_equal(pd.read_hdf(out[1]), pd.read_hdf(source / "labeled-data" / "m4s1" / out[1].name))


def test_lightning_pose_projects_keep_their_table_at_the_top(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "lp_mirror_mouse"
    names = pd.read_csv(source / "CollectedData.csv", header=[0, 1, 2], index_col=0).columns.get_level_values(1)[::2]
    labels = dlc.read(source, free(*names))
    assert (len(labels), int(labels.poses.labelled.sum())) == (90, 1396)
    out = dlc.write(labels, tmp_path, kinds=["csv"])
    assert out[0].read_bytes() == (source / "CollectedData.csv").read_bytes()


def test_the_multi_animal_sample_of_sleap_returns(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "sleap_videos" / "madlc_format_sample" / "dlc"
    labels = dlc.read(source, free("E", "D", "C", "B", "A"))
    assert set(labels.extras.instance.values()) == {"Animal1", "Animal2", "single"}
    out = pd.read_csv(dlc.write(labels, tmp_path, kinds=["csv"])[0], header=None)
    there = pd.read_csv(source / "labeled-data" / "video" / "CollectedData_LM.csv", header=None)
    assert out.iloc[:4].equals(there.iloc[:4])
    np.testing.assert_array_equal(out.iloc[4:, 3:].astype(float), there.iloc[4:, 3:].astype(float))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SINGLE.replace("bodyparts,b,b", "bodyparts,c,c"), "lacks b, and has unknown c"),
        (SINGLE.replace("0.1,0.2", "0.1,zero"), "a cell is not a number"),
        (SINGLE.replace("0.1,0.2", "0.1,"), "x without y or y without x: labeled-data/v/img1.png"),
        (SINGLE.replace("0.1,0.2", "inf,0.2"), "infinite"),
        (SINGLE.replace("img10", "img1"), "several rows or tables: labeled-data/v/img1.png"),
        (SINGLE.replace("img10", "img99"), "1 of 3 labelled images cannot be read"),
        (SINGLE.replace("coords,x,y,x,y", "coords,x,y,likelihood,x"), "'coords' is not x, y"),
        (SINGLE.replace("bodyparts,b,b,a,a", "bodyparts,b,b,b,b"), "has a bodypart twice"),
        (SINGLE.replace("scorer", "name"), "header rows are name, bodyparts, coords, expected scorer"),
        (SINGLE + "labeled-data/v/img1.png,1,2,3,4,5,6\n", "not a whole DeepLabCut table"),
        ("", "not a whole DeepLabCut table"),
    ],
)
def test_a_broken_table_is_named_with_its_fault(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        dlc.read(project(tmp_path, text), free("a", "b"))
    assert str(tmp_path) in str(caught.value)


def test_projects_without_tables_or_with_several_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no CollectedData\*\.csv .* or labels=h5"):
        dlc.read(project(tmp_path / "none"), free("a", "b"))
    two = project(tmp_path / "two", SINGLE, SINGLE)
    with pytest.raises(DataError, match=r"several tables: .* Choose one with scorer="):
        dlc.read(two, free("a", "b"))
    assert len(dlc.read(two, free("a", "b"), scorer="Ann")) == 3
    (two / "labeled-data" / "v" / "CollectedData_Ann.h5").write_bytes(b"no hdf")
    with pytest.raises(DataError, match="no DeepLabCut table 'df_with_missing' can be read"):
        dlc.read(two, free("a", "b"), labels="h5")


def test_more_instances_than_individuals_are_refused(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, SINGLE), free("a", "b"))
    labels.start[:] = [0, 2, 2, 2]
    with pytest.raises(DataError, match="more instances than its table has individuals"):
        dlc.write(labels, tmp_path / "out")


def test_individuals_on_the_same_points_are_counted(tmp_path: Path) -> None:
    labels = dlc.read(project(tmp_path, MULTI.replace("5.0,6.0,7.0,8.0", "0.1,0.2,3.25,4.0")), free("a", "b"))
    assert any(
        n.startswith("2 instances have the same keypoints as another one of their image: 2, 3") for n in labels.notes
    )


def frame(three: bool = False, individuals: bool = False) -> pd.DataFrame:
    levels = [["Ann"], *([["m1", "m2"]] if individuals else []), ["nose", "tail"], ["x", "y"]]
    names = dlc.MULTI_LEVELS if individuals else dlc.SINGLE_LEVELS
    columns = pd.MultiIndex.from_product(levels, names=names)
    values = np.arange(3.0 * len(columns)).reshape(3, -1)
    values[0, :2] = np.nan
    rows = [f"labeled-data/v/{n}.png" for n in ("img2", "img1", "img10")]
    index = pd.MultiIndex.from_tuples([tuple(r.split("/")) for r in rows]) if three else rows
    return pd.DataFrame(values, columns=columns, index=index)


@pytest.mark.parametrize("individuals", [False, True])
@pytest.mark.parametrize(("layout", "three"), [("fixed", False), ("fixed", True), ("table", False)])
@pytest.mark.parametrize("change", ["none", "order", "float32", "whole numbers", "two blocks"])
def test_h5_is_read_as_pandas_reads_it(
    tmp_path: Path, layout: str, three: bool, individuals: bool, change: str
) -> None:
    """The oracle is ``pandas.read_hdf``, which kplab does not use."""
    table = frame(three, individuals)
    if change == "order":
        table = table[table.columns[[2, 3, 0, 1, *range(4, len(table.columns))]]].iloc[::-1]
    if change == "float32":
        table = table.astype(np.float32)
    if change == "whole numbers":
        table = table.fillna(0).astype(np.int64)
    if change == "two blocks":
        table = table.fillna(0).astype({table.columns[-1]: np.int64, table.columns[1]: np.float32})
    path = tmp_path / "a.h5"
    table.to_hdf(path, key=dlc.KEY, mode="w", format=layout)
    with h5py.File(path) as file:
        found = read_frame(file, dlc.KEY)
    pd.testing.assert_frame_equal(found, pd.read_hdf(path).astype(np.float64), check_names=True)


def test_real_h5_files_are_read_as_pandas_reads_them(real_data: Path) -> None:
    files = sorted(real_data.glob("**/CollectedData*.h5"))
    assert files
    for path in files:
        with h5py.File(path) as file:
            found = read_frame(file, dlc.KEY)
        pd.testing.assert_frame_equal(found, pd.read_hdf(path).astype(np.float64), check_names=True)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("layout", "place", "attribute"),
    [
        ("fixed", "df_with_missing", "TITLE"),
        ("fixed", "df_with_missing", "encoding"),
        ("fixed", "df_with_missing", "pandas_type"),
        ("fixed", "df_with_missing", "axis0_variety"),
        ("fixed", "df_with_missing", "nblocks"),
        ("fixed", "df_with_missing/axis0_level0", "name"),
        ("fixed", "df_with_missing/axis1", "kind"),
        ("fixed", "df_with_missing/block0_values", "transposed"),
        ("table", "df_with_missing", "non_index_axes"),
        ("table", "df_with_missing", "info"),
        ("table", "df_with_missing", "values_cols"),
        ("table", "df_with_missing/table", "values_block_0_kind"),
        ("table", "df_with_missing/table", "values_block_0_meta"),
    ],
)
def test_a_pickle_in_an_h5_is_not_executed(
    tmp_path: Path, layout: str, place: str, attribute: str, protocol: int
) -> None:
    """It is refused where kplab reads the attribute, and ignored where it does not."""
    folder, ran = project(tmp_path / "a"), tmp_path / "ran"
    path = folder / "labeled-data" / "v" / "CollectedData_Ann.h5"
    frame().to_hdf(path, key=dlc.KEY, mode="w", format=layout)
    with h5py.File(path, "a") as file:
        data = pickle.dumps([Evil(ran)], protocol)
        file[place].attrs[attribute] = np.void(data) if protocol else np.bytes_(data)
    with contextlib.suppress(DataError):
        labels = dlc.read(folder, free("nose", "tail"), labels="h5")
        assert len(labels) == 3
    assert not ran.exists()


def test_pickled_arrays_in_an_h5_are_refused(tmp_path: Path) -> None:
    """Labels of mixed types: PyTables pickles them into an array of objects."""
    folder = project(tmp_path)
    path = folder / "labeled-data" / "v" / "CollectedData_Ann.h5"
    table = frame()
    table.index = pd.Index(["labeled-data/v/img2.png", 3, None], dtype=object)
    table.to_hdf(path, key=dlc.KEY, mode="w")
    with pytest.raises(DataError, match="not text of a fixed length"):
        dlc.read(folder, free("nose", "tail"), labels="h5")


@pytest.mark.parametrize(
    "value",
    [
        [], (), {}, [(1, "x"), ("y", 2.5)], {1: {"names": ["a", "b"], "type": "MultiIndex"}}, ["a", "a", ("a", None)], -3, 2**40,
        [True, False], "µ\n'", ("one",), ("one", "two", "three"), [[["deep"]]],
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_literals_are_what_pickle_reads(value: object, protocol: int) -> None:
    assert literal(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("value", [Evil(Path("x")), {1, 2}, Path("a"), np.float64(3), b"bytes", [len], frozenset()])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_other_objects_are_refused(value: object, protocol: int) -> None:
    with pytest.raises(ValueError, match="not what pandas writes"):
        literal(pickle.dumps(value, protocol))


@pytest.mark.parametrize("kind", ["soft link", "external link", "external storage", "virtual"])
def test_values_of_other_files_are_refused(tmp_path: Path, kind: str) -> None:
    folder = project(tmp_path / "a")
    path, other = folder / "labeled-data" / "v" / "CollectedData_Ann.h5", tmp_path / "other.h5"
    frame().to_hdf(path, key=dlc.KEY, mode="w")
    frame().to_hdf(other, key=dlc.KEY, mode="w")
    name = f"{dlc.KEY}/block0_values"
    with h5py.File(path, "a") as file:
        del file[name]
        if kind == "soft link":
            file[name] = h5py.SoftLink("/elsewhere")
        elif kind == "external link":
            file[name] = h5py.ExternalLink(str(other), name)
        elif kind == "external storage":
            (tmp_path / "raw").write_bytes(bytes(96))
            file.create_dataset(name, (3, 4), np.float64, external=[(str(tmp_path / "raw"), 0, 96)])
        else:
            layout = h5py.VirtualLayout((3, 4), np.float64)
            layout[:] = h5py.VirtualSource(str(other), name, (3, 4))
            file.create_virtual_dataset(name, layout)
    with pytest.raises(DataError, match=r"is a link to another place|lie in another file"):
        dlc.read(folder, free("nose", "tail"), labels="h5")
