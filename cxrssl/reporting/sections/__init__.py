"""The sections of a report card, in their order."""

from collections.abc import Callable, Sequence

from cxrssl.reporting.content import Section
from cxrssl.reporting.sections.attention import attention_section
from cxrssl.reporting.sections.comparison import comparison_section
from cxrssl.reporting.sections.correspondence import correspondence_section
from cxrssl.reporting.sections.health import health_section
from cxrssl.reporting.sections.leaks import leaks_section
from cxrssl.reporting.sections.patches import patches_section
from cxrssl.reporting.sections.probes import probes_section
from cxrssl.reporting.sections.retrieval import retrieval_section
from cxrssl.reporting.sections.run import run_section
from cxrssl.reporting.sections.segmentation import segmentation_section
from cxrssl.reporting.sections.subgroups import subgroups_section
from cxrssl.reporting.sections.world import world_section
from cxrssl.reporting.subjects import Topic

__all__ = ["SECTIONS"]

SECTIONS: Sequence[Callable[[Topic], Section | None]] = (
    probes_section,
    comparison_section,
    subgroups_section,
    leaks_section,
    health_section,
    attention_section,
    patches_section,
    correspondence_section,
    retrieval_section,
    segmentation_section,
    world_section,
    run_section,
)
"""Each makes a section, or None where it does not concern the encoders at hand."""
