// NVRTC has malloc, free and abs itself.
#pragma once
