// NVRTC has CUDA built in; the runtime API of the host is not for kernels.
#pragma once
