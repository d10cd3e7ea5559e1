import numpy as np
import pytest
import torch

from cxrssl.errors import InputError
from cxrssl.views import MultiBlockMasking
from cxrssl.views.multiblock import BlockLaw, block_masks, block_size
from tests.golden import load_golden

TARGET = BlockLaw((0.15, 0.2), (0.75, 1.5))
CHEXWORLD = BlockLaw((0.75, 1.0), (1.0, 1.0))
IJEPA = BlockLaw((0.85, 1.0), (1.0, 1.0))


def corrected(grid=(14, 14), **options):
    settings = {"context_scale": (0.75, 1.0), "sampler": "corrected", "merge": True, **options}
    return MultiBlockMasking(grid, **settings)


def halves(**options):
    """Return masking of a 4 x 4 grid by halves of 2 x 4 patches, with contexts of the whole."""
    laws = {"context_scale": (1.0, 1.0), "target_scale": (0.5, 0.5), "target_ratio": (0.5, 0.5)}
    return corrected((4, 4), **laws, **options)


def torch_sizes(side, step, sampler):
    """Return the sizes of a released collator at a step: a torch generator seeded by the step."""
    generator = torch.Generator().manual_seed(step)

    def number():
        return torch.rand(1, generator=generator).item()

    context = CHEXWORLD if sampler == "corrected" else IJEPA
    sizes = []
    for law in (TARGET, context):
        first = number()
        second = number() if sampler == "corrected" else 0.0
        sizes.append(block_size((side, side), law, (first, second), sampler))
    return sizes


def torch_corner(side, size, sampler):
    ends = [side - length + (sampler == "corrected") for length in size]
    return [int(torch.randint(0, end, (1,))) for end in ends]


def torch_contexts_and_targets(side, step, n_images, sampler, n_contexts=1):
    """Replay a released collator up to its index sets, image by image; also the attempts made."""
    target_size, context_size = torch_sizes(side, step, sampler)
    shared = sampler == "ijepa"
    contexts, targets, rows = [], [], []
    for _ in range(n_images):
        image_contexts, image_targets = [], []
        for number in range(n_contexts):
            if number == 0 or not shared:
                corners = [torch_corner(side, target_size, sampler) for _ in range(4)]
                blocks = block_masks((side, side), target_size, np.array(corners))
                image_targets.append(blocks)
                rows += [(0, *target_size, *corner) for corner in corners]
            for attempt in range(1, 200):
                corner = torch_corner(side, context_size, sampler)
                kept = image_targets[-1][: 4 - (attempt - 1) // 20].any(0)
                context = block_masks((side, side), context_size, np.array(corner)) & ~kept
                if context.sum() > 10:
                    break
            image_contexts.append(context)
            rows.append((1, *context_size, *corner, attempt, context.sum()))
        contexts.append(image_contexts)
        targets.append(image_targets)
    return np.array(contexts), np.array(targets), rows


def blocks_of_golden(rows, n_images, n_contexts, side):
    """Return contexts (B, E, N) and targets (B, E, 4, N) of recorded blocks."""
    rows = rows.numpy().reshape(n_images, n_contexts, 5, 7)
    masks = np.zeros((*rows.shape[:3], side, side), dtype=bool)
    for index in np.ndindex(rows.shape[:3]):
        _, height, width, top, left, _, _ = rows[index]
        masks[index][top : top + height, left : left + width] = True
    masks = masks.reshape(*rows.shape[:3], -1)
    targets = masks[:, :, :4]
    contexts = masks[:, :, 4] & ~targets.any(2)
    assert (contexts.sum(-1) == rows[:, :, 4, 6]).all()
    return contexts, targets


class TestGolden:
    def test_block_sizes_of_chexworld(self):
        expected = load_golden("chexworld/masks.npz")["cw_block_sizes"].tolist()
        sizes = [torch_sizes(14, step, "corrected") for step in range(256)]
        assert [[*target, *context] for target, context in sizes] == expected

    @pytest.mark.parametrize(
        ("name", "side"), [("vith14_224", 16), ("vith16_448", 28), ("vitb16_224", 14)]
    )
    def test_block_sizes_of_ijepa(self, name, side):
        expected = load_golden("chexworld/masks.npz")[f"ijepa_{name}_block_sizes"].tolist()
        sizes = [torch_sizes(side, step, "ijepa") for step in range(256)]
        assert [[*target, *context] for target, context in sizes] == expected

    @pytest.mark.parametrize("step", range(4))
    def test_index_sets_of_chexworld(self, step):
        golden = load_golden("chexworld/masks.npz")
        blocks = blocks_of_golden(golden[f"cw_step{step}_blocks"], 6, 1, 14)
        contexts, targets = corrected().index_sets(*blocks, np.random.default_rng(0))
        assert contexts.dtype == targets.dtype == np.int64
        assert np.array_equal(contexts[:, 0], golden[f"cw_step{step}_masks_enc"])
        assert np.array_equal(targets[:, 0], golden[f"cw_step{step}_masks_pred"])

    def test_index_sets_of_two_contexts_with_targets_of_their_own(self):
        golden = load_golden("chexworld/masks.npz")
        blocks = blocks_of_golden(golden["cw_nomerge_nenc2_blocks"], 3, 2, 14)
        masking = corrected(n_contexts=2, shared_targets=False, merge=False)
        contexts, targets = masking.index_sets(*blocks, np.random.default_rng(0))
        assert np.array_equal(contexts.swapaxes(0, 1), golden["cw_nomerge_nenc2_masks_enc"])
        assert np.array_equal(targets.swapaxes(0, 1), golden["cw_nomerge_nenc2_masks_pred"])

    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize(
        ("name", "side"), [("vith14_224", 16), ("vith16_448", 28), ("vitb16_224", 14)]
    )
    def test_index_sets_of_ijepa(self, name, side, step):
        golden = load_golden("chexworld/masks.npz")
        prefix = f"ijepa_{name}_step{step}"
        blocks = blocks_of_golden(golden[f"{prefix}_blocks"], 4, 1, side)
        masking = MultiBlockMasking((side, side))
        contexts, targets = masking.index_sets(*blocks, np.random.default_rng(0))
        assert np.array_equal(contexts.swapaxes(0, 1), golden[f"{prefix}_masks_enc"])
        assert np.array_equal(targets.swapaxes(0, 1), golden[f"{prefix}_masks_pred"])

    def test_replay_of_chexworld_from_its_seed(self):
        golden = load_golden("chexworld/masks.npz")
        with torch.random.fork_rng():
            torch.manual_seed(1234)
            replays = [torch_contexts_and_targets(14, step, 6, "corrected") for step in range(4)]
        for step, (contexts, targets, rows) in enumerate(replays):
            expected = golden[f"cw_step{step}_blocks"].tolist()
            assert [list(row) for row in rows if row[0]] == [row for row in expected if row[0]]
            sets = corrected().index_sets(contexts, targets, np.random.default_rng(0))
            assert np.array_equal(sets[0][:, 0], golden[f"cw_step{step}_masks_enc"])
            assert np.array_equal(sets[1][:, 0], golden[f"cw_step{step}_masks_pred"])

    def test_replay_of_two_contexts_from_its_seed(self):
        golden = load_golden("chexworld/masks.npz")
        with torch.random.fork_rng():
            torch.manual_seed(7)
            contexts, targets, _ = torch_contexts_and_targets(14, 0, 3, "corrected", n_contexts=2)
        masking = corrected(n_contexts=2, shared_targets=False, merge=False)
        sets = masking.index_sets(contexts, targets, np.random.default_rng(0))
        assert np.array_equal(sets[0].swapaxes(0, 1), golden["cw_nomerge_nenc2_masks_enc"])
        assert np.array_equal(sets[1].swapaxes(0, 1), golden["cw_nomerge_nenc2_masks_pred"])

    @pytest.mark.parametrize(
        ("name", "side"), [("vith14_224", 16), ("vith16_448", 28), ("vitb16_224", 14)]
    )
    def test_replay_of_ijepa_from_its_seed(self, name, side):
        golden = load_golden("chexworld/masks.npz")
        with torch.random.fork_rng():
            torch.manual_seed(1234)
            replays = [torch_contexts_and_targets(side, step, 4, "ijepa") for step in range(2)]
        for step, (contexts, targets, _) in enumerate(replays):
            masking = MultiBlockMasking((side, side))
            sets = masking.index_sets(contexts, targets, np.random.default_rng(0))
            prefix = f"ijepa_{name}_step{step}"
            assert np.array_equal(sets[0].swapaxes(0, 1), golden[f"{prefix}_masks_enc"])
            assert np.array_equal(sets[1].swapaxes(0, 1), golden[f"{prefix}_masks_pred"])


class TestBlocks:
    def test_size_by_hand(self):
        # 196 * 0.15 = 29.4 -> 29; aspect 0.75: sqrt(21.75) = 4.66, sqrt(38.67) = 6.22.
        assert block_size((14, 14), TARGET, (0.0, 0.0)) == (5, 6)
        # 196 * 0.175 = 34.3 -> 34; aspect sqrt(0.75 * 1.5) = 1.061: 6.005 and 5.66.
        assert block_size((14, 14), TARGET, (0.5, 0.5)) == (6, 6)
        # The one number of I-JEPA: aspect 1.125: sqrt(38.25) = 6.18, sqrt(30.2) = 5.50 (5.4975).
        assert block_size((14, 14), TARGET, (0.5, 0.9), "ijepa") == (6, 5)

    def test_only_the_corrected_law_reaches_the_whole_grid(self):
        whole = BlockLaw((1.0, 1.0), (1.0, 1.0))
        assert block_size((9, 9), whole, (0.0, 0.0)) == (9, 9)
        assert block_size((9, 9), whole, (0.0, 0.0), "ijepa") == (8, 8)

    def test_masks_by_hand(self):
        masks = block_masks((3, 4), (2, 1), np.array([[0, 3], [1, 0]]))
        assert np.flatnonzero(masks[0]).tolist() == [3, 7]
        assert np.flatnonzero(masks[1]).tolist() == [4, 8]


def slow_index_sets(contexts, targets, merge):
    """Shorten the sets of a batch with loops."""
    wanted = []
    for image in targets:
        groups = [[set(np.flatnonzero(block)) for block in group] for group in image]
        if merge:
            wanted.append([sorted(set().union(*group)) for group in groups])
        else:
            wanted.append([sorted(block) for group in groups for block in group])
    seen = [[np.flatnonzero(context).tolist() for context in image] for image in contexts]
    shortened = []
    for batch in (seen, wanted):
        length = min(len(patches) for image in batch for patches in image)
        shortened.append([[patches[:length] for patches in image] for image in batch])
    return shortened


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_index_sets_equal_the_slow_loop(merge, groups):
    rng = np.random.default_rng(0)
    contexts = rng.random((5, 3, 40)) < 0.5
    targets = rng.random((5, groups, 2, 40)) < 0.3
    masking = MultiBlockMasking((5, 8), n_contexts=3, n_targets=2, merge=merge, min_keep=2)
    sets = masking.index_sets(contexts, targets, rng)
    assert [each.tolist() for each in sets] == slow_index_sets(contexts, targets, merge)


@pytest.mark.parametrize("sampler", ["ijepa", "corrected"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("random_keep", [True, False])
def test_sets_are_sorted_disjoint_and_within_the_grid(sampler, shared, merge, random_keep):
    masking = MultiBlockMasking(
        (12, 15),
        sampler=sampler,
        shared_targets=shared,
        merge=merge,
        random_keep=random_keep,
        n_contexts=2,
        n_targets=3,
    )
    rng = np.random.default_rng(1)
    groups = 1 if shared else 2
    for _ in range(20):
        contexts, targets = masking.collate_masks(9, rng)
        assert contexts.shape[:2] == (9, 2)
        assert targets.shape[:2] == (9, groups * (1 if merge else 3))
        for sets in (contexts, targets):
            assert sets.dtype == np.int64
            assert sets.shape[2] > 10
            assert (np.diff(sets) > 0).all()
            assert sets.min() >= 0
            assert sets.max() < 12 * 15
        for image in range(9):
            for number, context in enumerate(contexts[image]):
                own = targets[image].reshape(groups, -1)[0 if shared else number]
                assert not set(context) & set(own)


@pytest.mark.parametrize(("sampler", "unused"), [("ijepa", True), ("corrected", False)])
def test_last_row_and_column_are_used_by_the_corrected_law_only(sampler, unused):
    masking = MultiBlockMasking((14, 14), sampler=sampler, random_keep=True)
    rng = np.random.default_rng(0)
    used = np.zeros(196, dtype=bool)
    for _ in range(30):
        for sets in masking.collate_masks(16, rng):
            used[sets] = True
    grid = used.reshape(14, 14)
    assert grid[:13, :13].all()
    assert grid[13].any() != unused
    assert grid[:, 13].any() != unused


def test_ijepa_context_of_a_grid_of_16_never_moves():
    contexts, _ = MultiBlockMasking((16, 16)).collate_masks(4, np.random.default_rng(0))
    assert (contexts % 16).max() < 15
    assert contexts.max() < 15 * 16
    assert (contexts[:, 0, 0] <= 16).all()


def test_lengths_of_published_batches():
    golden = load_golden("chexworld/masks.npz")
    masking, rng = corrected(), np.random.default_rng(0)
    gaps = []
    for step in range(20):
        target_size, context_size = torch_sizes(14, step, "corrected")
        lengths = []
        for _ in range(15):
            corners = masking._draw_corners(target_size, (128, 1, 4), rng)
            targets = block_masks((14, 14), target_size, corners)
            contexts = masking.draw_contexts(context_size, targets, rng)
            sets = masking.index_sets(contexts, targets, rng)
            lengths.append([each.shape[-1] for each in sets])
        published = [golden["cw_b128_K_enc"][step], golden["cw_b128_K_pred"][step]]
        gaps.append(np.mean(lengths, axis=0) - published)
    # One published batch of 128 for each pair of sizes; its lengths spread by about 5.
    assert np.abs(gaps).max() < 17
    assert np.mean(gaps, axis=0) == pytest.approx([0, 0], abs=3)


def test_lengths_of_batches():
    masking, rng = corrected(), np.random.default_rng(0)
    lengths = np.array(
        [[sets.shape[-1] for sets in masking.collate_masks(128, rng)] for _ in range(200)]
    )
    # Published over 20 batches: contexts 27 to 85 (mean 57), targets 46 to 66 (mean 58).
    assert lengths.mean(0) == pytest.approx([53, 57], abs=3)
    assert np.percentile(lengths[:, 0], [10, 90]) == pytest.approx([27, 79], abs=6)
    assert np.percentile(lengths[:, 1], [10, 90]) == pytest.approx([47, 65], abs=3)


def test_lengths_of_ijepa_batches():
    masking, rng = MultiBlockMasking((16, 16)), np.random.default_rng(0)
    lengths = np.array(
        [[sets.shape[-1] for sets in masking.collate_masks(16, rng)] for _ in range(200)]
    )
    assert lengths.mean(0) == pytest.approx([81, 44], abs=5)
    assert set(lengths[:, 1]) <= set(range(35, 55))


def test_corners_are_uniform():
    masking = corrected(target_scale=(0.2, 0.2), target_ratio=(1.0, 1.0), n_targets=1)
    rng = np.random.default_rng(0)
    # 39 patches are a block of 6 x 6, whose first patch is its corner: 9 x 9 places.
    firsts = np.concatenate([masking.collate_masks(500, rng)[1][:, 0, 0] for _ in range(20)])
    counts = np.bincount(firsts, minlength=196).reshape(14, 14)
    assert counts[9:].sum() == counts[:, 9:].sum() == 0
    assert np.abs(counts[:9, :9] / 10_000 - 1 / 81).max() < 0.005


def test_published_shortening_favours_the_top_and_random_keep_does_not():
    shares = {}
    for random_keep in (False, True):
        masking, rng = corrected(random_keep=random_keep), np.random.default_rng(0)
        rows = np.concatenate([masking.collate_masks(128, rng)[1].ravel() // 14 for _ in range(20)])
        shares[random_keep] = (rows == 13).mean()
    assert shares[False] < 0.004
    assert shares[True] > 0.01


def test_random_keep_keeps_every_patch_equally_often():
    masking = corrected(random_keep=True)
    masks = np.zeros((3000, 1, 196), dtype=bool)
    masks[:, 0, 20:40] = True
    masks[0, 0, 25:] = False  # five patches are left in the shortest set
    _, targets = masking.index_sets(masks, masks[:, :, None], np.random.default_rng(0))
    counts = np.bincount(targets[1:].ravel(), minlength=196)[20:40]
    assert targets.shape == (3000, 1, 5)
    assert counts / 2999 == pytest.approx(np.full(20, 0.25), abs=0.04)


def test_max_keep_bounds_both_lengths():
    full = corrected().collate_masks(8, np.random.default_rng(3))
    capped = corrected(max_keep=20).collate_masks(8, np.random.default_rng(3))
    for sets, short in zip(full, capped, strict=True):
        assert short.shape == (8, 1, 20)
        assert np.array_equal(short, sets[..., :20])


def test_max_keep_may_be_less_than_min_keep():
    for sets in corrected(min_keep=10, max_keep=4).collate_masks(8, np.random.default_rng(3)):
        assert sets.shape == (8, 1, 4)


def disjoint(masking, n_images=320):
    """Return for each image whether its context meets none of its target blocks."""
    contexts, targets = masking.collate_masks(n_images, np.random.default_rng(0))
    pairs = zip(contexts.reshape(n_images, -1), targets.reshape(n_images, -1), strict=True)
    return np.array([not set(context) & set(target) for context, target in pairs])


class TestRoom:
    @pytest.mark.parametrize(
        ("grid", "options", "message"),
        [
            # The usable part is one patch, which is context and target.
            ((2, 2), {"sampler": "ijepa"}, "of 1 x 1 patches leaves at most 0 of .* of 1 x 1"),
            ((1, 1), {}, "of 1 x 1 patches leaves at most 0 of .* of 1 x 1"),
            # Areas of 9 to 14 patches, of which some are the whole grid.
            ((4, 4), {"target_scale": (0.6, 0.9)}, r"of 4 x 4 .* target_scale = \(0.6, 0.9\)"),
            # An area of 3 patches has sides of 1.7, which are rounded to the whole grid.
            (
                (2, 2),
                {"min_keep": 1, "target_scale": (0.75, 0.75)},
                "of 2 x 2 patches leaves at most 0 of a context block of 2 x 2 on a grid of 2 x 2 "
                "with sampler='corrected', which is not more than min_keep = 1; use a finer grid",
            ),
        ],
    )
    def test_target_blocks_that_cover_the_grid_are_refused(self, grid, options, message):
        with pytest.raises(InputError, match=message):
            corrected(grid, **{"min_keep": 0, **options})

    def test_room_is_counted_by_hand(self):
        # A context of 4 x 4 less a target of 2 x 4 leaves 8.
        assert halves(min_keep=7).min_keep == 7
        half = {"context_scale": (0.5, 0.5), "target_scale": (0.5, 0.5)}
        # Blocks of 3 x 3 in opposite corners of 4 x 4 have 2 x 2 in common: 9 - 4 = 5 are left.
        assert corrected((4, 4), target_ratio=(1, 1), min_keep=4, **half).min_keep == 4
        with pytest.raises(InputError, match=r"3 x 3 patches leaves at most 5 of .* min_keep = 5"):
            corrected((4, 4), target_ratio=(1, 1), min_keep=5, **half)
        # Without the last row and column nothing is left of the same blocks.
        with pytest.raises(InputError, match=r"3 x 3 patches leaves at most 0 of .*'ijepa'"):
            corrected((4, 4), target_ratio=(1, 1), min_keep=4, sampler="ijepa", **half)

    @pytest.mark.parametrize("sampler", ["ijepa", "corrected"])
    def test_what_is_left_equals_the_slow_search(self, sampler):
        masking = MultiBlockMasking((4, 5), sampler=sampler, min_keep=0)
        rows, columns = (4, 5) if sampler == "corrected" else (3, 4)
        sizes = [(h, w) for h in range(1, rows + 1) for w in range(1, columns + 1)]
        for context in sizes:
            for target in sizes:
                seen, wanted = (
                    block_masks(
                        (4, 5), (h, w), np.argwhere(np.ones((rows - h + 1, columns - w + 1)))
                    )
                    for h, w in (context, target)
                )
                left = (seen[:, None] & ~wanted).sum(-1).max()
                assert masking._most_left(context, target) == left

    @pytest.mark.parametrize(("grid", "sampler"), [((3, 3), "ijepa"), ((2, 2), "corrected")])
    def test_overlaps_are_rare_on_the_smallest_grids_that_are_left(self, grid, sampler):
        # Four blocks of one patch cover the four usable places in 4! / 4^4 = 9 % of the images.
        options = {"sampler": sampler, "min_keep": 0, "merge": False}
        assert (~disjoint(corrected(grid, **options))).mean() == pytest.approx(0.09, abs=0.06)


class Corners:
    """Hands out corners from a list, one per block, in place of a generator."""

    def __init__(self, corners):
        self.corners = list(corners)

    def integers(self, ends, size):
        count = int(np.prod(size[:-1]))
        drawn, self.corners = self.corners[:count], self.corners[count:]
        assert (np.array(drawn) < ends).all()
        return np.array(drawn, dtype=np.int64).reshape(size)


class TestContexts:
    def test_only_contexts_with_too_few_patches_are_placed_again(self):
        masking = corrected((4, 4), n_targets=1, min_keep=3)
        target = np.zeros((3, 1, 1, 16), dtype=bool)
        target[..., [0, 1]] = True
        # Blocks of 2 x 2: at (0, 0) two of four patches are left, at (0, 1) three, below all four.
        script = Corners([(0, 0), (2, 2), (0, 1), (1, 0), (0, 0), (1, 1)])
        contexts = masking.draw_contexts((2, 2), target, script)
        assert [np.flatnonzero(each).tolist() for each in contexts[:, 0]] == [
            [4, 5, 8, 9],
            [10, 11, 14, 15],
            [5, 6, 9, 10],
        ]
        assert not script.corners

    def test_target_blocks_are_dropped_from_the_last_after_20_tries_each(self):
        masking = halves(n_targets=2, min_keep=7)
        targets = np.zeros((1, 1, 2, 16), dtype=bool)
        targets[0, 0, 0, :6] = True
        targets[0, 0, 1, 8:] = True
        # The whole grid less both has 2 patches, less the first 10, which is enough.
        script = Corners([(0, 0)] * 21)
        contexts = masking.draw_contexts((4, 4), targets, script)
        assert np.flatnonzero(contexts).tolist() == list(range(6, 16))
        assert not script.corners

    def test_all_target_blocks_are_dropped_at_last(self):
        masking = halves(n_targets=2, min_keep=7)
        targets = np.ones((1, 1, 2, 16), dtype=bool)
        script = Corners([(0, 0)] * 41)
        assert masking.draw_contexts((4, 4), targets, script).all()
        assert not script.corners

    def test_crowded_grids_end(self):
        # Halves at different rows leave 4 patches or none.
        contexts, targets = halves(min_keep=5).collate_masks(64, np.random.default_rng(0))
        assert contexts.shape[-1] > 5
        assert targets.shape[-1] > 5


def test_sizes_with_too_few_patches_are_drawn_again():
    masking = corrected((4, 4), min_keep=1, n_targets=1)
    rng = np.random.default_rng(0)
    # Areas of 2 and 3 patches: 1 x 1 is possible but has no more than min_keep.
    lengths = {masking.collate_masks(2, rng)[1].shape[-1] for _ in range(100)}
    assert lengths == {2, 4}


def test_a_rare_size_is_taken_in_the_end():
    class Smallest:
        def random(self, size):
            return np.full(size, 0.5)

    masking = corrected((4, 4), min_keep=3)
    assert masking._draw_size(masking._target_law, (2, 2), Smallest()) == (2, 2)


def test_same_generator_same_masks():
    masking = corrected()
    first, again, other = (masking.collate_masks(8, np.random.default_rng(s)) for s in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (0, 4)}, r"at least 1 rows and columns .* sampler='corrected', got \(0, 4\)"),
        (
            {"grid": (1, 4), "sampler": "ijepa"},
            r"at least 2 rows and columns .* sampler='ijepa', got \(1, 4\)",
        ),
        ({"context_scale": (0.0, 1.0)}, r"context_scale must be .* got \(0.0, 1.0\)"),
        ({"target_scale": (0.5, 0.2)}, r"target_scale must be .* got \(0.5, 0.2\)"),
        ({"target_ratio": (2.0, 1.0)}, r"target_ratio must be .* got \(2.0, 1.0\)"),
        ({"sampler": "other"}, "sampler must be 'ijepa' or 'corrected', got 'other'"),
        ({"n_contexts": 0}, "n_contexts and n_targets must be positive, got 0 and 4"),
        ({"n_targets": 0}, "n_contexts and n_targets must be positive, got 1 and 0"),
        ({"min_keep": -1}, "got -1 and None"),
        ({"max_keep": 0}, "max_keep must be positive or None, got 10 and 0"),
        (
            {"grid": (4, 4)},
            r"target blocks of a grid of 4 x 4 patches with target_scale = \(0.15, 0.2\) have at "
            "most 4 patches, which is not more than min_keep = 10; lower min_keep",
        ),
        ({"min_keep": 196}, "context blocks of a grid of 14 x 14 .* at most 196 patches"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        corrected(**{"grid": (14, 14), **options})
