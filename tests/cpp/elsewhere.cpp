// The library's own, built without the folder that it was told of.
#include "ort_library.cpp"
