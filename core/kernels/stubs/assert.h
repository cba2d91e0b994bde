// NVRTC has assert itself.
#pragma once
