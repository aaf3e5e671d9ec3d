"""What the stages call the files that they pass on."""

EXPORTED = "exported.onnx"
SIMPLIFIED = "simplified.onnx"
EQUALIZED = "equalized.onnx"
QUANTIZED = "quantized.onnx"
HALF = "half.onnx"
RANGES = "ranges.npz"
CALIBRATION = "calibration.json"
