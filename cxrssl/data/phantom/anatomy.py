"""The patient and how the patient stood before the detector, as sampled parameters."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Anatomy", "Pose"]


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in every radiograph of one patient.

    Lengths are in half-widths of the thorax unless said otherwise.

    Args:
        sex: ``"F"`` or ``"M"``.
        age: In years.
        fat: Thickness of the soft tissue outside the ribs.
        half_width: Half the inner width of the thorax, as a share of the image's side.
        aspect: Height of the lungs over the half-width of the thorax.
        heart_ratio: Cardiothoracic ratio without cardiomegaly.
        large_heart_ratio: Cardiothoracic ratio with cardiomegaly.
        heart_tilt: Share of the heart's width left of the midline, from the patient's view.
        aorta: Radius of the aortic knob.
        breast: Opacity of the breast shadows; 0 without.
        breast_size: Radius of the breast shadows.
        breast_height: Height of their centre, in lung heights from the apex.
        rib_drop: How far ribs descend from the spine to their front end, in lung heights.
        rib_density: Opacity of the bones.
        clavicle_rise: How far the lateral end of a clavicle stands above the medial one.
        scoliosis: Sideways bow of the spine.
        dome_gap: How much higher the right dome of the diaphragm stands, in lung heights.
        vessel_density: Opacity of the pulmonary vessels.
        texture_seed: Seed of vessels and soft-tissue texture.
    """

    sex: str
    age: int
    fat: float
    half_width: float
    aspect: float
    heart_ratio: float
    large_heart_ratio: float
    heart_tilt: float
    aorta: float
    breast: float
    breast_size: float
    breast_height: float
    rib_drop: float
    rib_density: float
    clavicle_rise: float
    scoliosis: float
    dome_gap: float
    vessel_density: float
    texture_seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient; every call takes the same count of random numbers."""
        female = rng.random() < 0.48
        age = int(np.clip(rng.normal(55, 18), 18, 92))
        fat = float(np.clip(rng.gamma(2.5, 0.06), 0.03, 0.5))
        old = (age - 55) / 40
        breast = rng.uniform(0.06, 0.18)
        return cls(
            sex="F" if female else "M",
            age=age,
            fat=fat,
            half_width=rng.uniform(0.365, 0.43) - (0.015 if female else 0.0) - 0.08 * fat,
            aspect=rng.uniform(1.62, 1.95),
            heart_ratio=rng.uniform(0.40, 0.49),
            large_heart_ratio=rng.uniform(0.525, 0.61),
            heart_tilt=rng.uniform(0.62, 0.70),
            aorta=rng.uniform(0.09, 0.13) + 0.03 * old,
            breast=breast if female else 0.0,
            breast_size=rng.uniform(0.36, 0.52),
            breast_height=rng.uniform(0.54, 0.72),
            rib_drop=rng.uniform(0.24, 0.36),
            rib_density=rng.uniform(0.8, 1.15) - 0.12 * old,
            clavicle_rise=rng.uniform(-0.01, 0.13),
            scoliosis=rng.normal(0.0, 0.02),
            dome_gap=rng.uniform(0.02, 0.055),
            vessel_density=rng.uniform(0.75, 1.25),
            texture_seed=int(rng.integers(2**62)),
        )


@dataclass(frozen=True)
class Pose:
    """What differs between two radiographs of one patient before the detector.

    Args:
        view_position: ``"PA"`` (standing) or ``"AP"`` (bedside).
        yaw: Turn about the long axis; shifts the front against the back of the thorax, in
            half-widths.
        tilt: Turn in the plane of the image, in radians.
        centre_x: Where the midline crosses the image, as a share of its side.
        top: Where the apices of the lungs stand, as a share of its side.
        zoom: Size relative to the patient's own.
        inspiration: From 0 (poor) to 1 (full).
        arm: How far the arms are away from the trunk, in half-widths.
        scapula: How far the scapulae are rotated out of the lungs, in half-widths.
    """

    view_position: str
    yaw: float
    tilt: float
    centre_x: float
    top: float
    zoom: float
    inspiration: float
    arm: float
    scapula: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Pose":
        """Draw a position; every call takes the same count of random numbers."""
        bedside = rng.random() < 0.4
        return cls(
            view_position="AP" if bedside else "PA",
            yaw=float(np.clip(rng.normal(0, 0.06 if bedside else 0.03), -0.14, 0.14)),
            tilt=float(np.clip(rng.normal(0, 0.05 if bedside else 0.02), -0.12, 0.12)),
            centre_x=0.5 + float(np.clip(rng.normal(0, 0.03), -0.07, 0.07)),
            top=rng.uniform(0.05, 0.16) + (0.02 if bedside else 0.0),
            zoom=rng.uniform(0.90, 1.06),
            inspiration=rng.uniform(0.0, 0.75) if bedside else rng.uniform(0.3, 1.0),
            arm=rng.uniform(0.0, 0.35),
            scapula=rng.uniform(-0.14, 0.0) if bedside else rng.uniform(-0.02, 0.14),
        )
