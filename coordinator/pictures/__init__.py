"""Pictures of the net, for people; knows no MLflow."""
