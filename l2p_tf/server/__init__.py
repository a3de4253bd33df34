"""A server for exported classifiers with TensorFlow Serving's REST interface."""
