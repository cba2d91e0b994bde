// NVRTC has memcpy, memset and memmove itself.
#pragma once
