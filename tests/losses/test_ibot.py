import torch
from torch.testing import assert_close

from cxrssl.losses import SoftmaxCentering, ibot_loss, mask_weights, sinkhorn
from tests.golden import load_golden


def test_golden_loss_gradient_and_centre():
    golden = load_golden("dinov2/ibot_loss.npz")
    mask, temperature = golden["mask"], golden["teacher_temp"].item()
    student = golden["student_full"].clone().requires_grad_()
    teacher_rows = golden["teacher_full"][mask]
    weights = mask_weights(mask, mask.flatten().nonzero()[:, 0])
    assert_close(weights, golden["masks_weight"])

    centering = SoftmaxCentering(24)
    probabilities = centering(teacher_rows, temperature)
    assert_close(probabilities, golden["softmax_probs_masked_center0"], atol=1e-6, rtol=1e-5)
    loss = ibot_loss(student[mask], probabilities, weights, len(mask))
    loss.backward()
    assert_close(loss, golden["loss_forward_masked_weight"], atol=1e-5, rtol=1e-5)
    assert_close(loss, golden["loss_forward_full"], atol=1e-5, rtol=1e-5)
    assert_close(student.grad, golden["grad_student_full"], atol=1e-5, rtol=1e-5)
    custom = ibot_loss(student[mask], probabilities, golden["custom_weight"], len(mask))
    assert_close(custom, golden["loss_forward_masked_custom_weight"], atol=1e-5, rtol=1e-5)

    centering.observe(teacher_rows)
    centering.update()
    assert_close(centering.center, golden["center_after_update"][0, 0], atol=1e-6, rtol=1e-5)
    assert_close(
        centering(teacher_rows, temperature),
        golden["softmax_probs_masked_center1"],
        atol=1e-6,
        rtol=1e-5,
    )


def test_golden_sinkhorn_targets():
    golden = load_golden("dinov2/ibot_loss.npz")
    mask = golden["mask"]
    targets = sinkhorn(golden["teacher_full"][mask], golden["teacher_temp"].item())
    assert_close(targets, golden["sinkhorn_probs_masked"], atol=1e-5, rtol=1e-5)
    loss = ibot_loss(
        golden["student_full"][mask],
        targets,
        mask_weights(mask, mask.flatten().nonzero()[:, 0]),
        len(mask),
    )
    assert_close(loss, golden["sinkhorn_loss"], atol=1e-5, rtol=1e-5)


def test_crops_weigh_the_same_however_many_patches_they_mask():
    # Crop 0 masks one patch, crop 1 three, crop 2 none; each patch has cross-entropy log 2.
    masks = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    student, teacher = torch.zeros(4, 2), torch.tensor([[1.0, 0.0]]).expand(4, 2)
    loss = ibot_loss(
        student, teacher, mask_weights(masks, masks.flatten().nonzero()[:, 0]), n_crops=3
    )
    assert_close(loss, 2 / 3 * torch.tensor(2.0).log())


def test_no_masked_patch_gives_zero():
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = ibot_loss(empty, torch.zeros(0, 4), torch.zeros(0), n_crops=2)
    assert loss.item() == 0
