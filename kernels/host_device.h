// Marks arithmetic that the CPU and the CUDA kernels share.
#pragma once
#ifdef __CUDACC__
#define UMBRA_HD __host__ __device__ __forceinline__
#define UMBRA_HD_MEMBER __host__ __device__
#else
#define UMBRA_HD inline
#define UMBRA_HD_MEMBER
#endif
