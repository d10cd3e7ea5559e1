"""What frozen encoders are worth on labelled images: scores, intervals, comparisons, figures."""

from cxrssl.evaluation.options import EvaluationOptions
from cxrssl.evaluation.results import Results
from cxrssl.evaluation.run import evaluate
from cxrssl.evaluation.table import score_table

__all__ = ["EvaluationOptions", "Results", "evaluate", "score_table"]
