// The loops of the CPU kernels are written so that the compiler vectorises them.

#pragma once

// What a vectorised loop calls has to be inlined, or it stays plain x86-64 code.
#define DETLITE_INLINE inline __attribute__((always_inline))

// Compile a function for plain x86-64, for AVX2 and for AVX-512, and pick one when the library is
// loaded, so that a wheel runs everywhere. Sanitizers cannot follow that choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(DETLITE_NO_CLONES)
#define DETLITE_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define DETLITE_CLONES
#endif
