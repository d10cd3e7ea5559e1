"""A generator of plausible frontal chest radiographs with labels, masks and patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.phantom.anatomy import Anatomy, Pose
from cxrssl.data.phantom.canvas import Field, Layer
from cxrssl.data.phantom.devices import Devices
from cxrssl.data.phantom.findings import (
    FINDINGS,
    Consolidation,
    Effusion,
    Nodule,
    Pneumothorax,
)
from cxrssl.data.phantom.patients import PatientRegister
from cxrssl.data.phantom.render import Scene, attenuation
from cxrssl.data.phantom.scanner import Style, develop
from cxrssl.errors import InputError

__all__ = ["Phantom", "PhantomImage"]

_CHRONIC = ("cardiomegaly", "nodule")
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class PhantomImage:
    """One radiograph of the phantom.

    Args:
        pixels: (S, S) uint8, bones bright.
        labels: 1 or 0 for each finding.
        masks: (S, S) bool: ``lungs`` (the lung fields beside heart and mediastinum, whatever fills
            them), ``heart``, and one a finding, empty where it is absent.
        sex: ``"F"`` or ``"M"``.
        age: In years.
        view_position: ``"PA"`` or ``"AP"``.
        patient_id: Whose radiograph it is.
    """

    pixels: NDArray[np.uint8]
    labels: dict[str, int]
    masks: dict[str, NDArray[np.bool_]]
    sex: str
    age: int
    view_position: str
    patient_id: str


class Phantom:
    """Numbered chest radiographs; image ``number`` is a function of seed and number alone.

    Anatomy, position, findings, devices and scanner vary. Findings are drawn independently of
    everything else, so that neither exposure nor view tells them. Cardiomegaly and nodules belong
    to the patient and stay; effusion, pneumothorax and consolidation differ between the images of
    a patient. The same number shows the same chest at every size; only the noise differs.

    Args:
        size: Side of the images in pixels, S; at least 32.
        seed: Another seed gives other patients.
        images_per_patient: Patients own 1 to this many consecutive images, each count equally
            often.
        prevalence: Share of images with a finding: one number, or one a finding (those left out
            keep 0.28).
        severity: How the sizes of findings are distributed within their ranges. 1 is a mix in which
            small ones prevail; larger values shift it to large ones, which are easier to see.

    Raises:
        InputError: If an argument is out of range, or a finding is unknown.
    """

    def __init__(
        self,
        size: int = 128,
        seed: int = 0,
        *,
        images_per_patient: int = 3,
        prevalence: float | Mapping[str, float] = 0.28,
        severity: float = 1.0,
    ) -> None:
        if size < 32:
            raise InputError(f"size must be at least 32 pixels, got {size}")
        if seed < 0:
            raise InputError(f"seed must not be negative, got {seed}")
        if not severity > 0:
            raise InputError(f"severity must be positive, got {severity}")
        if isinstance(prevalence, Mapping):
            _check_names(prevalence, "prevalence")
            shares = {name: prevalence.get(name, 0.28) for name in FINDINGS}
        else:
            shares = dict.fromkeys(FINDINGS, prevalence)
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"prevalence of {name} must be in [0, 1], got {share}")
        self.size = size
        self.seed = seed
        self.prevalence = shares
        self.severity = severity
        self._patients = PatientRegister(seed, images_per_patient)

    def draw(self, number: int, override: Mapping[str, bool] | None = None) -> PhantomImage:
        """Return an image with labels and masks.

        Args:
            number: Which image, from 0 upwards.
            override: Findings to force present (true) or absent (false); all else, the places and
                sizes of the other findings included, stays as it is.

        Raises:
            InputError: If the number is negative or a finding is unknown.
        """
        scene, style, rng = self._scene(number, override)
        loss, layers = attenuation(scene, self.size)
        return PhantomImage(
            pixels=_to_uint8(develop(loss, style, rng)),
            labels={name: int(scene.present[name]) for name in FINDINGS},
            masks={name: self._mask(layers.get(name)) for name in ("lungs", "heart", *FINDINGS)},
            sex=scene.anatomy.sex,
            age=scene.anatomy.age,
            view_position=scene.pose.view_position,
            patient_id=self.patient_id(number),
        )

    def pixels(self, number: int, override: Mapping[str, bool] | None = None) -> NDArray[np.uint8]:
        """Return the pixels (S, S) of :meth:`draw`, bones bright, without the masks."""
        return _to_uint8(self.grey(number, override))

    def grey(self, number: int, override: Mapping[str, bool] | None = None) -> Field:
        """Return the image (S, S) float32 in [0, 1], before it is cut to 256 grey values."""
        scene, style, rng = self._scene(number, override)
        return develop(attenuation(scene, self.size)[0], style, rng)

    def labels(self, number: int) -> dict[str, int]:
        """Return 1 or 0 for each finding; nothing is rendered."""
        present = self._present(*self._streams(number))
        return {name: int(present[name]) for name in FINDINGS}

    def patient_id(self, number: int) -> str:
        """Return whose image it is."""
        return f"p{self._patient(number):06d}"

    def describe(self, number: int) -> dict[str, str | int]:
        """Return the row of the index without its split; nothing is rendered.

        The keys are dataset, path, patient_id, study_id, view_position, sex, age and the findings.
        """
        image, patient = self._streams(number)
        present = self._present(image, patient)
        anatomy, pose = Anatomy.sample(patient), Pose.sample(image)
        return {
            "dataset": "phantom",
            "path": f"phantom/{number:06d}",
            "patient_id": self.patient_id(number),
            "study_id": f"s{number:06d}",
            "view_position": pose.view_position,
            "sex": anatomy.sex,
            "age": anatomy.age,
            **{name: int(present[name]) for name in FINDINGS},
        }

    def index(self, n: int, split: Sequence[float] = (0.8, 0.1, 0.1)) -> pd.DataFrame:
        """Return the index of images 0 to n - 1, one row an image.

        A patient's split depends on the seed and the patient alone: a longer index repeats the
        splits of a shorter one. Shares are met within a few patients.

        Args:
            n: Number of images.
            split: Shares of patients in train, val and test.

        Raises:
            InputError: If n is not positive, or the shares do not sum to 1.
        """
        if n < 1:
            raise InputError(f"an index needs at least 1 image, got n = {n}")
        if len(split) != 3 or min(split) < 0 or abs(sum(split) - 1) > 1e-6:
            raise InputError(
                f"split must be three shares that sum to 1 (train, val, test), got {split}"
            )
        table = pd.DataFrame([self.describe(number) for number in range(n)])
        patients = np.array([self._patient(number) for number in range(n)])
        names = np.array(_SPLITS)[self._patients.split(patients, split)]
        table.insert(5, "split", names)
        text = ["dataset", "path", "patient_id", "study_id", "view_position", "split", "sex"]
        return table.astype(dict.fromkeys(text, "string"))

    def _patient(self, number: int) -> int:
        if number < 0:
            raise InputError(f"the number of an image must not be negative, got {number}")
        return self._patients.owner(number)

    def _streams(self, number: int) -> tuple[np.random.Generator, np.random.Generator]:
        """Return the random numbers of an image and of its patient."""
        # The 1 at the end keeps a patient's stream apart from that of the image of this number.
        patient = np.random.default_rng((self.seed, self._patient(number), 1))
        return np.random.default_rng((self.seed, number)), patient

    def _present(self, image: np.random.Generator, patient: np.random.Generator) -> dict[str, bool]:
        """Draw which findings are there: the first numbers of both streams."""
        acute, chronic = image.random(len(FINDINGS)), patient.random(len(FINDINGS))
        draws = {
            name: chronic[column] if name in _CHRONIC else acute[column]
            for column, name in enumerate(FINDINGS)
        }
        return {name: bool(draws[name] < self.prevalence[name]) for name in FINDINGS}

    def _scene(
        self, number: int, override: Mapping[str, bool] | None
    ) -> tuple[Scene, Style, np.random.Generator]:
        rng, patient = self._streams(number)
        present = self._present(rng, patient)
        if override:
            _check_names(override, "override")
            present.update({name: bool(value) for name, value in override.items()})
        pose = Pose.sample(rng)
        bedside = pose.view_position == "AP"
        scene = Scene(
            anatomy=Anatomy.sample(patient),
            pose=pose,
            present=present,
            effusion=Effusion.sample(rng, self.severity),
            pneumothorax=Pneumothorax.sample(rng, self.severity),
            nodule=Nodule.sample(patient, self.severity),
            consolidation=Consolidation.sample(rng, self.severity),
            gas=rng.uniform(0.02, 0.22),
            devices=Devices.sample(rng, bedside=bedside),
        )
        return scene, Style.sample(rng, bedside=bedside), rng

    def _mask(self, layer: Layer | None) -> NDArray[np.bool_]:
        if layer is None:
            return np.zeros((self.size, self.size), np.bool_)
        # Something smaller than half a pixel still has its brightest one.
        return layer >= min(128, max(int(layer.max()), 1))


def _check_names(findings: Mapping[str, object], argument: str) -> None:
    if unknown := sorted(set(findings) - set(FINDINGS)):
        raise InputError(
            f"{argument} names {', '.join(unknown)}; the findings are {', '.join(FINDINGS)}"
        )


def _to_uint8(grey: Field) -> NDArray[np.uint8]:
    return np.rint(grey * 255).astype(np.uint8)
