"""Outside judges against a provisioned host: ``make judge``."""
