# TensorRT::Headers, from JetPack, a distribution's package, or an archive of TensorRT unpacked at
# TENSORRT_ROOT. The library itself is opened when a bundle asks for it, and not needed here;
# CUDA's headers are, by those of TensorRT.
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h
  HINTS "${TENSORRT_ROOT}" ENV TENSORRT_ROOT
  PATH_SUFFIXES include)
find_path(TensorRT_CUDA_INCLUDE_DIR cuda_runtime_api.h
  HINTS "${TensorRT_INCLUDE_DIR}" ENV CUDA_PATH /usr/local/cuda
  PATH_SUFFIXES include)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT
  REQUIRED_VARS TensorRT_INCLUDE_DIR TensorRT_CUDA_INCLUDE_DIR)
if(TensorRT_FOUND AND NOT TARGET TensorRT::Headers)
  add_library(TensorRT::Headers INTERFACE IMPORTED)
  # Of an imported target they are the system's: their warnings are not ours.
  set_target_properties(TensorRT::Headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
    "${TensorRT_INCLUDE_DIR};${TensorRT_CUDA_INCLUDE_DIR}")
endif()
