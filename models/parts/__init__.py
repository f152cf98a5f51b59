"""The parts of the ensemble: how each is fitted and exported to ONNX. The running job needs none of this."""
