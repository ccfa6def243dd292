"""What several papers learn from and are judged by: images, tasks, trainings, accuracies."""
