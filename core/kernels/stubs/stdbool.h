// C++ has bool, true and false itself.
#pragma once
