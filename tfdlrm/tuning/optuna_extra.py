"""optuna, or an error that names the extra."""

try:
    import optuna
    from optuna.storages import journal
except ImportError as error:
    raise ImportError("Searching needs optuna. Install it: pip install 'tfdlrm[tune]'") from error

__all__ = ["journal", "optuna"]
