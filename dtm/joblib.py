"""``import dtm.joblib`` makes ``joblib.parallel_config(backend="dtm")`` known."""

from dtm.integrations.joblib import Backend, register

__all__ = ["Backend", "register"]

register()
