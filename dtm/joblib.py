"""``import dtm.joblib`` makes ``joblib.parallel_config(backend="dtm")`` known."""

try:
    import joblib  # type: ignore[import-untyped]  # noqa: F401
except ImportError as error:
    raise ImportError("dtm.joblib needs joblib: pip install 'dtm[joblib]'") from error

from dtm.integrations.joblib import Backend, register

__all__ = ["Backend", "register"]

register()
