"""A server for exported classifiers, by TensorFlow Serving's REST interface."""
