"""Likelihoods: probability distributions of one pixel, over integers."""

__all__ = [
    "Bounds",
    "Categorical",
    "Likelihood",
    "LogisticMixture",
    "TabularLikelihood",
    "check_likelihood",
    "register_likelihood",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.likelihoods.base import Bounds, Likelihood, register_likelihood
    from pixelcnn.likelihoods.check import check_likelihood
    from pixelcnn.likelihoods.logistic import LogisticMixture
    from pixelcnn.likelihoods.tabular import Categorical, TabularLikelihood

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base": ["Bounds", "Likelihood", "register_likelihood"],
        "check": ["check_likelihood"],
        "logistic": ["LogisticMixture"],
        "tabular": ["Categorical", "TabularLikelihood"],
    },
)
