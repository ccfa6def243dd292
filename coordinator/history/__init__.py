"""Shows merges as MLflow runs; the only package that imports MLflow."""

import os

# MLflow reports usage to its makers unless told not to before it is imported, retries a dead
# server for minutes, and prints where a run can be seen on the standard output.
# An operator who sets these variables has the last word.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
