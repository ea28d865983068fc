"""What a job tells of itself: to a CSV file, to TensorBoard, to W&B, each a choice of `conf/logger`, under the same names."""
