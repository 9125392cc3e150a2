// Marks arithmetic that the CPU and the CUDA kernels share.
#pragma once
#ifdef __CUDACC__
#define UMBRA_HD __host__ __device__ __forceinline__
#else
#define UMBRA_HD inline
#endif
