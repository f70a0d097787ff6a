"""Applications: the command line, the demonstration and reports."""

__all__ = [
    "ReportOptions",
    "run_demo",
    "write_report",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.apps.demo import run_demo
    from pixelcnn.apps.report.report import write_report
    from pixelcnn.apps.report.subjects import ReportOptions

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "demo": ["run_demo"],
        "report.report": ["write_report"],
        "report.subjects": ["ReportOptions"],
    },
)
