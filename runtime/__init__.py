"""The ground floor: all that an application or a device needs to load and run a bundle.

It needs numpy and one runtime, never torch or onnx, and imports no other room. Its files stay
valid Python 3.8, which is what JetPack 5 ships.
"""
