"""Keras layers: noise on activations, convolutions with batch norm, input normalisation, and the factory of layers."""
