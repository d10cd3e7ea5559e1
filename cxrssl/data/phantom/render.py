"""From anatomy, position and findings to what the beam loses on its way: the attenuation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cxrssl.data.phantom import bones, organs
from cxrssl.data.phantom.anatomy import Anatomy, Pose
from cxrssl.data.phantom.canvas import (
    Field,
    Frame,
    Layer,
    Points,
    band,
    blur,
    coarse,
    ellipse,
    enlarge,
    outside,
    overlap,
    soft,
    spline,
    union,
)
from cxrssl.data.phantom.devices import Devices
from cxrssl.data.phantom.findings import Consolidation, Effusion, Nodule, Pneumothorax
from cxrssl.data.phantom.vessels import HILUM, WIDTHS, vessel_tree

__all__ = ["Scene", "attenuation"]

_VESSEL_VALUES = (255, 190, 140, 100)


@dataclass(frozen=True)
class Scene:
    """Everything before the detector.

    Args:
        anatomy: The patient.
        pose: How the patient stood or lay.
        present: Whether each finding is there.
        effusion: Its shape, drawn whether it is present or not; so are the next three.
        pneumothorax: As above.
        nodule: As above.
        consolidation: As above.
        gas: Size of the gas bubble in the stomach, in half-widths of the thorax.
        devices: Foreign bodies in and on the patient.
    """

    anatomy: Anatomy
    pose: Pose
    present: Mapping[str, bool]
    effusion: Effusion
    pneumothorax: Pneumothorax
    nodule: Nodule
    consolidation: Consolidation
    gas: float
    devices: Devices


class _Chest:
    """Layers of one scene; findings change the air of the lungs before it is subtracted."""

    def __init__(self, scene: Scene, side: int) -> None:
        anatomy, pose = scene.anatomy, scene.pose
        half_width = anatomy.half_width * pose.zoom
        self.scene = scene
        self.frame = Frame(
            side,
            half_width=half_width,
            height=half_width * anatomy.aspect,
            origin=(pose.centre_x, pose.top),
            tilt=pose.tilt,
            yaw=pose.yaw,
        )
        self.lungs = organs.lung(-1, anatomy, pose), organs.lung(1, anatomy, pose)
        self.field = self.frame.shape([lung.outline for lung in self.lungs])
        ratio = anatomy.large_heart_ratio if scene.present["cardiomegaly"] else anatomy.heart_ratio
        self.heart_outline = organs.heart(ratio, anatomy, pose)
        self.heart = self.frame.shape([self.heart_outline], depth=0.4)
        self.middle = self.frame.shape(organs.mediastinum(anatomy))
        self.belly = coarse(self._abdomen(), 0.03)
        self.masks: dict[str, Layer] = {}

    def lung_at(self, side: int) -> organs.Lung:
        return self.lungs[0] if side < 0 else self.lungs[1]

    def draw(self) -> Field:
        """Return the attenuation, and note the masks of the findings."""
        # Air at each place, as the attenuation it saves; the organs between the lungs displace it.
        air = soft(self.field, 0.50) * (coarse(self.field, 0.045) + 0.22)
        air *= 1 - soft(self.heart, 0.55) - 0.3 * coarse(self.heart, 0.03)
        air *= 1 - soft(self.middle, 0.55) - 0.4 * coarse(self.middle, 0.02)
        bright = self._vessels()
        self._replace_air(air, bright)
        loss = self._soft_tissue()
        loss -= air
        loss += bright * (air * 2)
        self._add_nodule(loss)
        self._add_ribs(loss)
        self._add_spine(loss)
        self._add_shoulders(loss)
        loss += soft(self.scene.devices.layer(self.frame), 0.30)
        return loss

    def _vessels(self) -> Field:
        anatomy, frame = self.scene.anatomy, self.frame
        rng = np.random.default_rng(anatomy.texture_seed)
        sheet = frame.sheet()
        generations = vessel_tree(rng, anatomy.aspect)
        # The thinnest first, so that the large vessels near the hilum stay on top.
        for lines, width, value in reversed(
            list(zip(generations, WIDTHS, _VESSEL_VALUES, strict=True))
        ):
            frame.trace(sheet, lines, width, value)
        density = soft(frame.finish(sheet), 0.22 * anatomy.vessel_density)
        hila = [
            ellipse((side * HILUM[0], HILUM[1] + 0.02 * -side), (0.11, 0.09), 0.3 * side)
            for side in (-1, 1)
        ]
        density += 0.33 * coarse(frame.shape(hila), 0.022)
        grain = rng.standard_normal((48, 48), dtype=np.float32) * 0.03
        density += enlarge(grain, frame.side)
        return density

    def _replace_air(self, air: Field, bright: Field) -> None:
        scene, frame, present = self.scene, self.frame, self.scene.present
        if present["consolidation"]:
            patch = scene.consolidation
            lung = self.lung_at(patch.side)
            layer = patch.mask(frame, lung, self.heart_outline, self.field, scene.anatomy.aspect)
            self.masks["consolidation"] = layer
            air *= 1 - soft(patch.density(layer), patch.opacity)
        if present["pneumothorax"]:
            self._collapse(air, bright)
        if present["effusion"]:
            fluid = scene.effusion
            layer = fluid.mask(frame, self.lung_at(fluid.side), self.field)
            self.masks["effusion"] = layer
            edge = overlap(blur(layer, 0.03 * frame.half_width), layer)
            air *= 1 - soft(edge, fluid.opacity)

    def _collapse(self, air: Field, bright: Field) -> None:
        gap, frame = self.scene.pneumothorax, self.frame
        lung = self.lung_at(gap.side)
        layer = gap.mask(frame, lung, self.field)
        self.masks["pneumothorax"] = layer
        bright *= 1 - soft(layer, 1.0)
        air += soft(layer, 0.09) * (air * 2)
        pleura = frame.finish(frame.trace(frame.sheet(), gap.pleura(lung)[None], 0.018))
        bright += soft(overlap(pleura, self.field), gap.line)

    def _soft_tissue(self) -> Field:
        scene, frame, anatomy = self.scene, self.frame, self.scene.anatomy
        body = frame.shape([organs.trunk(anatomy)])
        limbs = frame.shape(organs.arms(anatomy, scene.pose))
        both = union(body, limbs)
        loss = soft(both, 0.30) * (coarse(both, 0.03) * 0.7 + 0.3)
        loss += soft(body, 0.38 + 0.3 * anatomy.fat) * coarse(body, 0.06)
        loss += soft(body, 0.10) * self.belly
        if anatomy.breast:
            shadow = frame.shape(organs.breasts(anatomy), depth=1.0)
            loss += soft(shadow, anatomy.breast) * coarse(shadow, 0.05) * (1 - 0.6 * self.belly)
        airway = blur(frame.shape(self._airway()), 0.025 * frame.half_width)
        bubble = frame.shape([organs.gas_bubble(self.lungs[1], scene.gas)])
        loss -= soft(airway, 0.13) + soft(bubble, 0.13) * coarse(bubble, 0.02)
        return loss

    def _abdomen(self) -> Layer:
        right, left = self.lungs
        top = np.concatenate([right.dome, left.dome[::-1]])
        return self.frame.shape([np.concatenate([top, [(1.0, 2.6), (-1.0, 2.6)]])])

    def _airway(self) -> list[Points]:
        aspect = self.scene.anatomy.aspect
        trachea = spline([(0.0, -0.5), (0.0, 0.1), (-0.015, 0.34)], 12)
        right = spline([(-0.015, 0.33), (-0.12, 0.40), (-0.2, 0.46)], 8)
        left = spline([(-0.015, 0.33), (0.10, 0.395), (0.22, 0.43)], 8)
        return [
            band(trachea, 0.12, aspect),
            band(right, 0.085, aspect),
            band(left, 0.075, aspect),
        ]

    def _add_nodule(self, loss: Field) -> None:
        if not self.scene.present["nodule"]:
            return
        nodule = self.scene.nodule
        lung = self.lung_at(nodule.side)
        layer = self.frame.shape(
            [nodule.outline(lung, self.heart_outline, self.scene.anatomy.aspect)]
        )
        self.masks["nodule"] = layer
        blurred = blur(layer, 0.25 * nodule.radius * self.frame.half_width)
        loss += soft(overlap(blurred, layer), nodule.opacity)

    def _add_ribs(self, loss: Field) -> None:
        frame, anatomy = self.frame, self.scene.anatomy
        clear = 1 - 0.55 * self.belly - 0.45 * coarse(self.heart, 0.03)
        for front, wide, weight in ((False, 0.088, 0.12), (True, 0.10, 0.075)):
            lines, depth = bones.ribs(self.lungs, anatomy, front=front)
            sheet = frame.sheet()
            around = np.concatenate([depth, depth[::-1]])
            for width, value in ((wide, 255), (0.55 * wide, 165)):
                frame.fill(sheet, band(lines, width, anatomy.aspect), value, depth=around)
            # Scatter from heart and abdomen takes their contrast away there.
            loss += soft(frame.finish(sheet), weight * anatomy.rib_density) * clear

    def _add_spine(self, loss: Field) -> None:
        frame, density = self.frame, self.scene.anatomy.rib_density
        bodies, small_parts = bones.vertebrae(self.scene.anatomy)
        layer = frame.shape(bodies, depth=-0.6)
        small = frame.shape(small_parts, depth=-0.9)
        loss += soft(layer, 0.04 * density) + soft(small, 0.03 * density)
        loss += 0.10 * coarse(layer, 0.02)

    def _add_shoulders(self, loss: Field) -> None:
        scene, frame, density = self.scene, self.frame, self.scene.anatomy.rib_density
        plates = frame.shape(bones.scapulae(scene.pose), depth=-0.8)
        rim = outside(plates, blur(plates, 0.04 * frame.half_width))
        loss += soft(plates, 0.05 * density) + soft(rim, 0.07 * density)
        sheet = frame.fill(frame.sheet(), bones.clavicles(scene.anatomy), depth=0.6)
        limbs = frame.finish(frame.fill(sheet, bones.humeri(scene.anatomy, scene.pose)))
        inside = blur(limbs, 0.035 * frame.half_width)
        loss += soft(limbs, 0.25 * density) - soft(inside, 0.10 * density)


def attenuation(scene: Scene, size: int) -> tuple[Field, dict[str, Layer]]:
    """Return what the beam loses on its way, and the masks.

    Args:
        scene: What stands before the detector.
        size: Side of the image in pixels, S.

    Returns:
        (S, S) attenuation, about 0 in air and 1 behind the spine, and layers (S, S), full at 255:
        ``lungs``, ``heart``, and one a finding that is present.
    """
    chest = _Chest(scene, size)
    loss = chest.draw()
    covered = union(chest.heart, chest.middle)
    layers = {"lungs": outside(chest.field, covered), "heart": chest.heart, **chest.masks}
    if scene.present["cardiomegaly"]:
        layers["cardiomegaly"] = chest.heart
    return loss, layers
