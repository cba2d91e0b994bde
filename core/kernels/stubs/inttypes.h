#pragma once
#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>
