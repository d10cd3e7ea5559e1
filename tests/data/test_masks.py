import json
import pickle

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.masks import MaskSource, decode_runs, encode_runs, fill_polygons
from cxrssl.errors import InputError

DIALECTS = ["gap", "absolute", "kaggle"]
# Ones at (row, column) = (1, 1), (2, 1), (2, 2) of a 4 x 4 grid.
EXAMPLE = np.zeros((4, 4), dtype=bool)
EXAMPLE[[1, 2, 2], [1, 1, 2]] = True
TEXTS = {"gap": "5 2 3 1", "absolute": "6 1 10 2", "kaggle": "6 2 11 1"}
TRIANGLE = [[2, 1], [9, 3], [4, 8]]
SQUARE = [[6, 2], [11, 2], [11, 7], [6, 7]]


def filled(*polygons, shape=(10, 14)):
    """Return the union of polygons, each in a call of its own."""
    masks = [np.zeros(shape, np.uint8) for _ in polygons]
    for mask, polygon in zip(masks, polygons, strict=True):
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return np.any(masks, axis=0)


def save(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return str(path)


# Run lengths


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_example_of_each_dialect(dialect):
    np.testing.assert_array_equal(decode_runs(TEXTS[dialect], 4, 4, dialect), EXAMPLE)
    assert encode_runs(EXAMPLE, dialect) == TEXTS[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_runs_come_back(dialect, density):
    rng = np.random.default_rng(3)
    for shape in [(1, 1), (1, 9), (9, 1), (7, 5), (24, 31)]:
        mask = rng.random(shape) < density
        decoded = decode_runs(encode_runs(mask, dialect), *shape, dialect)
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(dialect, value):
    mask = np.full((3, 4), value)
    text = encode_runs(mask, dialect)
    assert text == ({"gap": "0 12"}.get(dialect, "1 12") if value else "-1")
    np.testing.assert_array_equal(decode_runs(text, 3, 4, dialect), mask)


@pytest.mark.parametrize("text", ["-1", " -1", "-1\n"])
def test_minus_one_is_an_empty_mask(text):
    assert not decode_runs(text, 4, 4, "gap").any()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_regions_are_united_and_each_starts_anew(dialect):
    rng = np.random.default_rng(4)
    first, second = rng.random((2, 6, 8)) < 0.4
    text = f"{encode_runs(first, dialect)}|{encode_runs(second, dialect)} | -1"
    np.testing.assert_array_equal(decode_runs(text, 6, 8, dialect), first | second)


@pytest.mark.parametrize(
    ("text", "dialect", "message"),
    [
        ("5 2 3", "gap", "in pairs .* got 3 numbers, the last of them 3"),
        ("5 two", "gap", "whole numbers, got 'two'"),
        ("5 2.0", "gap", r"whole numbers, got '2\.0'"),
        ("", "gap", "without run lengths: write -1"),
        ("5 2||3 1", "gap", "without run lengths: write -1"),
        ("5 0", "gap", "'5 0' is not at least one pixel"),
        ("5 -2", "kaggle", "'5 -2' is not at least one pixel"),
        ("15 2", "gap", "'15 2' leaves the frame of 4 x 4 pixels: .* 'gap'"),
        ("5 2 -3 1", "gap", "'-3 1' leaves the frame"),
        ("16 2", "absolute", "'16 2' leaves the frame"),
        ("0 2", "absolute", "'0 2' leaves the frame"),
        ("0 2", "kaggle", "'0 2' leaves the frame"),
        ("1 99999999999999999999", "kaggle", "'1 99999999999999999999' leaves the frame"),
        ("1 1", "siim", "gap, absolute, kaggle, got 'siim'"),
    ],
)
def test_runs_are_checked(text, dialect, message):
    with pytest.raises(InputError, match=message):
        decode_runs(text, 4, 4, dialect)


def test_the_last_pixel_is_in_the_frame():
    for text, dialect in [("15 1", "gap"), ("16 1", "absolute"), ("16 1", "kaggle")]:
        assert np.argwhere(decode_runs(text, 4, 4, dialect)).tolist() == [[3, 3]]


def test_what_is_encoded_is_checked():
    with pytest.raises(InputError, match=r"must be \(H, W\), got shape \(1, 4, 4\)"):
        encode_runs(EXAMPLE[None], "gap")
    with pytest.raises(InputError, match="got 'rle'"):
        encode_runs(EXAMPLE, "rle")


# Polygons


@pytest.mark.parametrize(
    "polygon",
    [
        TRIANGLE,
        [tuple(point) for point in TRIANGLE],
        [{"x": x, "y": y} for x, y in TRIANGLE],
        [2, 1, 9, 3, 4, 8],
        "2 1 9 3 4 8",
        "2.0 0.9 9.2 3 4 8",
        [TRIANGLE],
        [[2, 1, 9, 3, 4, 8]],
        ["2 1 9 3 4 8"],
    ],
)
def test_ways_to_write_a_polygon(polygon):
    expected = filled(TRIANGLE)
    np.testing.assert_array_equal(fill_polygons(polygon, 10, 14), expected)
    if not isinstance(polygon, str):
        np.testing.assert_array_equal(fill_polygons(json.dumps(polygon), 10, 14), expected)


def test_the_border_of_a_polygon_is_inside():
    mask = fill_polygons([[1, 1], [3, 1], [3, 2], [1, 2]], 4, 5)
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize(
    "polygons",
    [
        [TRIANGLE, SQUARE],
        [TRIANGLE, [{"x": x, "y": y} for x, y in SQUARE]],
        ["2 1 9 3 4 8", "6 2 11 2 11 7 6 7"],
        "2 1 9 3 4 8|6 2 11 2 11 7 6 7",
        f"{json.dumps(TRIANGLE)} | {json.dumps(SQUARE)} | None",
    ],
)
def test_polygons_are_united_where_they_overlap(polygons):
    assert (filled(TRIANGLE) & filled(SQUARE)).any()
    mask = fill_polygons(polygons, 10, 14)
    np.testing.assert_array_equal(mask, filled(TRIANGLE, SQUARE))


@pytest.mark.parametrize("text", ["None", '"None"', "[]", "-1", [], ["None"]])
def test_absent_structures_are_empty(text):
    mask = fill_polygons(text, 3, 4)
    assert mask.shape == (3, 4)
    assert mask.dtype == bool
    assert not mask.any()


def test_polygons_are_cut_at_the_frame():
    mask = fill_polygons([[-5, -5], [2, -5], [2, 30], [-5, 30]], 4, 5)
    assert mask.sum(axis=0).tolist() == [4, 4, 4, 0, 0]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ("1 2 3", "x and y come in pairs, got 3 numbers"),
        ("1 2 three 4", "'1 2 three 4' is neither JSON nor numbers"),
        ("[[1, 2], [3,", r"'\[\[1, 2\], \[3,' is neither JSON"),
        ("  ", "without a polygon: write None"),
        ([[1, 2], None], "1 is no polygon|None is no polygon"),
        ([{"x": 1, "z": 2}], "'z': 2} is no polygon"),
        ("[[1, 2], [NaN, 4], [5, 6]]", "nan is no coordinate"),
        ([1, 2, 3, 1e9], "1000000000.0 is no coordinate"),
        (f"a{'1' * 100}", r"'a1{58}\.\.\. is neither"),
    ],
)
def test_polygons_are_checked(polygons, message):
    with pytest.raises(InputError, match=message):
        fill_polygons(polygons, 8, 8)


# Sources of masks


def test_planes_are_in_the_order_of_the_structures():
    source = MaskSource({"lung": ["5 2 3 1", "-1"], "heart": ["0 1", None]}, format="gap")
    assert source.names == ("lung", "heart")
    assert len(source) == 2
    masks = source.read(0, (4, 4))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks[0], EXAMPLE)
    assert np.argwhere(masks[1]).tolist() == [[0, 0]]
    assert [np.unique(plane).tolist() for plane in source.read(1, (4, 4))] == [[0], [255]]


@pytest.mark.parametrize("kind", ["file", *DIALECTS, "polygon"])
def test_missing_is_unknown_and_minus_one_is_empty(kind):
    references = [None, pd.NA, float("nan"), "", "  ", "-1", " -1"]
    source = MaskSource({"tube": references}, format=kind)
    values = [np.unique(source.read(i, (3, 5))).tolist() for i in range(len(source))]
    assert values == [[255]] * 5 + [[0]] * 2


@pytest.mark.parametrize("dtype", ["object", "string"])
def test_columns_of_an_index_are_references(dtype):
    column = pd.Series(["1 2", None], index=[7, 3], dtype=dtype)
    source = pickle.loads(pickle.dumps(MaskSource({"a": column}, format="kaggle")))
    assert source.read(0, (2, 2))[0].tolist() == [[1, 0], [1, 0]]
    assert source.read(1, (2, 2))[0].tolist() == [[255, 255], [255, 255]]


@pytest.mark.parametrize(
    ("kind", "text"), [("absolute", TEXTS["absolute"]), ("polygon", "1 1 2 2 1 2")]
)
def test_masks_of_a_frame_follow_the_image(kind, text):
    source = MaskSource({"lung": [text]}, format=kind, frame=(4, 4))
    np.testing.assert_array_equal(source.read(0, (4, 4))[0], EXAMPLE)
    # Larger: pixels repeat. Smaller: the pixel at the centre of each block of 2 x 2, the latter.
    np.testing.assert_array_equal(source.read(0, (8, 12))[0], np.kron(EXAMPLE, np.ones((2, 3))))
    np.testing.assert_array_equal(source.read(0, (2, 2))[0], EXAMPLE[1::2, 1::2])


def test_files_are_inside_from_128_on(tmp_path):
    pixels = np.array([[0, 127, 128], [255, 1, 200]], dtype=np.uint8)
    save(tmp_path / "a.png", pixels)
    source = MaskSource({"lung": ["a.png"]}, root=str(tmp_path))
    assert source.read(0, (2, 3)).tolist() == [[[0, 0, 1], [1, 0, 1]]]
    source = MaskSource({"lung": [str(tmp_path / "a.png")]}, unknown=127)
    assert source.read(0, (2, 3)).tolist() == [[[0, 255, 1], [1, 0, 1]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_of_label_maps(tmp_path, dtype):
    labels = np.array([[0, 7, 3], [3, 200, 7]], dtype=dtype)
    path = save(tmp_path / "map.png", labels)
    references = {name: [f"{path}#{name}"] for name in ("3", "7", "9")}
    masks = MaskSource(references, unknown=200).read(0, (2, 3))
    assert masks.tolist() == [
        [[0, 0, 1], [1, 255, 0]],
        [[0, 1, 0], [0, 255, 1]],
        [[0, 0, 0], [0, 255, 0]],
    ]


def test_a_shared_file_is_read_once(tmp_path, monkeypatch):
    path = save(tmp_path / "map.png", np.eye(3, dtype=np.uint8))
    calls = []
    monkeypatch.setattr(
        "cxrssl.data.masks.read_image",
        lambda *args, **options: calls.append(args) or read_image(*args, **options),
    )
    MaskSource({str(i): [f"{path}#{i}"] for i in range(4)}).read(0, (3, 3))
    assert len(calls) == 1


def test_rows_of_an_archive_are_files(tmp_path):
    np.savez(tmp_path / "masks.npz", images=np.array([[[0, 0]], [[255, 0]]], dtype=np.uint8))
    references = [f"{tmp_path}/masks.npz#{row}" for row in range(2)]
    source = MaskSource({"lung": references})
    assert [source.read(i, (1, 2)).tolist() for i in range(2)] == [[[[0, 0]]], [[[1, 0]]]]


@pytest.mark.parametrize("suffix", ["bmp", "gif", "png", "tif"])
def test_containers(tmp_path, suffix):
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 3:25] = 255
    if suffix == "gif":
        Image.fromarray(mask).save(tmp_path / "m.gif")
    else:
        save(tmp_path / f"m.{suffix}", mask)
    source = MaskSource({"lung": [f"{tmp_path}/m.{suffix}"]})
    np.testing.assert_array_equal(source.read(0, mask.shape)[0], mask // 255)


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n and no more"])
def test_unreadable_files_make_the_image_corrupt(tmp_path, suffix, content):
    path = tmp_path / f"m.{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"m\.{suffix}"):
        MaskSource({"lung": [str(path)]}).read(0, (2, 2))


def test_a_file_of_another_size_is_refused(tmp_path):
    path = save(tmp_path / "m.png", np.zeros((2, 3), np.uint8))
    source = MaskSource({"lung": [None, path]})
    message = r"mask of 'lung' of image 1: .*m\.png has 2 x 3 pixels .* its image 4 x 4: resize"
    with pytest.raises(InputError, match=message) as caught:
        source.read(1, (4, 4))
    assert not isinstance(caught.value, ImageReadError)


def test_files_of_another_size_are_brought_to_the_image_if_asked_to(tmp_path):
    pixels = np.array([[0, 255, 100], [7, 100, 255]], dtype=np.uint8)
    path = save(tmp_path / "m.png", pixels)
    references = {"lung": [path], "seven": [f"{path}#7"]}
    source = MaskSource(references, resize=True, unknown=100)
    expected = np.array([[[0, 1, 255], [0, 255, 1]], [[0, 0, 255], [1, 255, 0]]])
    np.testing.assert_array_equal(source.read(0, (2, 3)), expected)
    np.testing.assert_array_equal(source.read(0, (4, 9)), np.kron(expected, np.ones((1, 2, 3))))
    # Of two rows the latter has the centre, of three columns the middle one.
    np.testing.assert_array_equal(source.read(0, (1, 1)), [[[255]], [[255]]])


def test_files_are_united(tmp_path):
    left = save(tmp_path / "a.png", np.array([[255, 100, 0, 100]], dtype=np.uint8))
    right = save(tmp_path / "b.png", np.array([[100, 255, 0, 0]], dtype=np.uint8))
    source = MaskSource({"lungs": [f"{left}|{right}", f"{left}#0 | {right}#0"]}, unknown=100)
    assert source.read(0, (1, 4)).tolist() == [[[1, 1, 0, 255]]]
    assert source.read(1, (1, 4)).tolist() == [[[255, 255, 1, 1]]]


def test_a_file_of_zeros_and_ones_is_refused(tmp_path):
    path = save(tmp_path / "m.png", np.eye(3, dtype=np.uint8))
    with pytest.raises(InputError, match=r"pixels 0 and 1 only.*m\.png#1"):
        MaskSource({"lung": [path]}).read(0, (3, 3))
    assert MaskSource({"lung": [f"{path}#1"]}).read(0, (3, 3)).sum() == 3


@pytest.mark.parametrize("kind", [*DIALECTS, "polygon"])
def test_wrong_texts_name_structure_and_image(kind):
    source = MaskSource({"rib": ["-1", "1 2 3"]}, format=kind)
    with pytest.raises(InputError, match=r"mask of 'rib' of image 1: .* got 3 numbers"):
        source.read(1, (4, 4))


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        ({"a": ["x"]}, {"format": "rle"}, "one of file, gap, .* got 'rle'"),
        ({"a": ["x"]}, {"frame": (0, 4)}, r"\(height, width\) in pixels, got \(0, 4\)"),
        ({}, {}, "one reference per image, got none"),
        ({"a": ["x"], "b": ["x", "y"]}, {}, "got 1 of 'a', 2 of 'b'"),
        ({"a": [1.5]}, {}, "masks of 'a' must be given as text"),
        ({"a": [[[1, 2]]]}, {"format": "polygon"}, "masks of 'a' must be given as text"),
    ],
)
def test_sources_are_checked(references, options, message):
    with pytest.raises(InputError, match=message):
        MaskSource(references, **options)
