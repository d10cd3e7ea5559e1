import numpy as np
import pytest

from cxrssl.data.releases.boxes import Box
from cxrssl.data.releases.fusion import fuse_boxes


def sides(box):
    return box.left, box.top, box.right, box.bottom


def draw(seed, count=12):
    """Return boxes of two findings: three readers about each of a few places."""
    rng = np.random.default_rng(seed)
    boxes = []
    for number in range(count):
        corner, size = rng.uniform(0, 300, 2), rng.uniform(20, 80, 2)
        for reader in ("R1", "R2", "R3")[: rng.integers(1, 4)]:
            low, high = corner + rng.normal(0, 4, 2), corner + size + rng.normal(0, 4, 2)
            boxes.append(Box(f"finding {number % 2}", *low.tolist(), *high.tolist(), reader))
    return boxes


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def slow(boxes, threshold):
    """Return fused boxes by finding, one comparison at a time."""
    groups = []
    for box in sorted(boxes, key=sides):
        best, most = None, threshold
        for group in groups:
            mean = [sum(side) / len(group) for side in zip(*map(sides, group), strict=True)]
            if group[0].finding == box.finding and overlap(sides(box), mean) > most:
                best, most = group, overlap(sides(box), mean)
        if best is None:
            groups.append([box])
        else:
            best.append(box)
    return {
        (group[0].finding, tuple(np.mean([sides(box) for box in group], axis=0)))
        for group in groups
    }


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_a_slow_reference_does(seed):
    boxes = draw(seed)
    found = {(box.finding, sides(box)) for box in fuse_boxes(boxes, 0.4)}
    expected = slow(boxes, 0.4)
    assert len(found) == len(expected) < len(boxes)
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one[0] == other[0]
        np.testing.assert_allclose(one[1], other[1])


@pytest.mark.parametrize("seed", range(5))
def test_what_holds_of_all_fused_boxes(seed):
    boxes = draw(seed)
    fused = fuse_boxes(boxes)
    assert len(fused) <= len(boxes)
    assert {box.finding for box in fused} == {box.finding for box in boxes}
    for box in fused:
        drawn = np.array([sides(other) for other in boxes if other.finding == box.finding])
        assert (drawn.min(axis=0) <= sides(box)).all()
        assert (drawn.max(axis=0) >= sides(box)).all()
        assert box.reader is None
    order = np.random.default_rng(seed).permutation(len(boxes))
    assert set(fuse_boxes([boxes[place] for place in order])) == set(fused)
    # A larger copy of the image, cut elsewhere, has the same boxes there.
    moved = [Box(box.finding, *(2 * np.array(sides(box)) + 8).tolist()) for box in boxes]
    expected = [2 * np.array(sides(box)) + 8 for box in fused]
    np.testing.assert_allclose([sides(box) for box in fuse_boxes(moved)], expected)


def test_the_same_box_of_three_readers_is_one():
    boxes = [Box("a", 1.0, 2.0, 3.0, 4.0, reader) for reader in ("R1", "R2", "R3")]
    assert fuse_boxes(boxes) == [Box("a", 1.0, 2.0, 3.0, 4.0)]


def test_boxes_apart_of_another_finding_or_without_an_area_stay():
    boxes = [
        Box("a", 0.0, 0.0, 2.0, 2.0),
        Box("a", 1.0, 0.0, 3.0, 2.0),  # a third of the union
        Box("b", 0.0, 0.0, 2.0, 2.0),
        Box("c", 5.0, 5.0, 5.0, 5.0),
        Box("c", 5.0, 5.0, 5.0, 5.0),
    ]
    assert fuse_boxes(boxes) == boxes
    assert fuse_boxes(boxes, 0.3)[0] == Box("a", 0.5, 0.0, 2.5, 2.0)
    assert fuse_boxes([]) == []
