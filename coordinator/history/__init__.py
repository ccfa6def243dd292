"""A merge as an MLflow run; the only room that imports MLflow."""
