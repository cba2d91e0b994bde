// NVRTC has printf itself.
#pragma once
